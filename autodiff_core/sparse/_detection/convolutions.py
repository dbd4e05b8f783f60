"""Detection rules for convolutions and pooling."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.index_sets import MOST_LAYERS, Layer, Layers
from autodiff_core.sparse._detection.reductions import reduce_dims
from autodiff_core.sparse._detection.registry import Call, rule, shape_of


def windows(
    maps: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    sizes: Sequence[int],
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield each position of a kernel with the elements that it reads, shape (*leading, *sizes)."""
    # Pad the end enough for every position of the kernel; what is cut off lies in the padding.
    pads: list[int] = []
    dims = len(kernel)
    for dim in reversed(range(dims)):
        size = maps.shape[maps.dim() - dims + dim]
        needed = (sizes[dim] - 1) * stride[dim] + (kernel[dim] - 1) * dilation[dim] + 1
        pads += [padding[dim], max(0, needed - size - padding[dim])]
    padded = functional.pad(maps, pads, value=-1)
    for place in itertools.product(*map(range, kernel)):
        selected = padded
        for dim, at in enumerate(place):
            axis = maps.dim() - dims + dim
            begin = at * dilation[dim]
            end = begin + (sizes[dim] - 1) * stride[dim] + 1
            selected = selected[(slice(None),) * axis + (slice(begin, end, stride[dim]),)]
        yield place, selected


def _per_dim(value: Any, dims: int) -> list[int]:
    given = [value] if isinstance(value, int) else list(value)
    return given * dims if len(given) == 1 else given


@rule("convolution")
def _convolution(call: Call) -> Traced:
    operand, weight, bias, stride, padding, dilation, is_transposed, _, groups = call.arguments
    shape, context = call.shape, call.context
    parts: list[Layers] = []
    if isinstance(operand, Traced):
        reach = (stride, padding, dilation, bool(is_transposed), groups)
        parts.append(_convolved(operand, weight, reach, shape, context))
    if isinstance(weight, Traced):
        parts.append(_of_weights(weight, shape, groups, is_transposed, context))
    if isinstance(bias, Traced):
        view = (1, shape[1], *(1,) * (len(shape) - 2))
        parts.append(tuple(Layer(b.map.reshape(view).expand(shape), b.table) for b in bias.layers))
    return Traced(shape, context.sets.union(parts, shape))


def _of_weights(
    weight: Traced, shape: tuple[int, ...], groups: int, is_transposed: bool, context: Context
) -> Layers:
    """Return how a convolution depends on its weights: each channel on its whole kernel."""
    ones = (1,) * (len(shape) - 2)
    dims = range(1, len(weight.shape))
    grouped = weight
    if is_transposed:
        # (groups, in channels of a group, out channels of a group, *kernel)
        full = (groups, weight.shape[0] // groups, *weight.shape[1:])
        layers = tuple(Layer(layer.map.reshape(full), layer.table) for layer in weight.layers)
        grouped, dims = Traced(full, layers), (1, *range(3, len(full)))
    kept = reduce_dims(grouped, dims, context)
    return tuple(Layer(k.map.reshape(1, shape[1], *ones).expand(shape), k.table) for k in kept)


def _by_channels(
    read: tuple[Any, Any], shape: tuple[int, ...], groups: int, context: Context
) -> Layers:
    """Return how weights' derivatives depend on two images: on one channel of each.

    Args:
        read: The images of the weights' first and second dimension, shape (n, channels, *sizes).
        shape: That of the weights.
        groups: The number of groups.
        context: What rules share.
    """
    parts: list[Layers] = []
    for number, image in enumerate(read):
        if not isinstance(image, Traced):
            continue
        kept = reduce_dims(image, [d for d in range(len(image.shape)) if d != 1], context)
        ones = (1,) * (len(shape) - 2)
        layers = []
        for layer in kept:
            channels = layer.map.reshape(-1)
            if number == 0:
                wide = channels.view(-1, 1, *ones)
            else:  # the channels of a group, for each first dimension in it
                wide = channels.view(groups, 1, -1).expand(-1, shape[0] // groups, -1)
                wide = wide.reshape(shape[0], -1, *ones)
            layers.append(Layer(wide.expand(shape), layer.table))
        parts.append(tuple(layers))
    return context.sets.union(parts, shape)


def _convolved(
    operand: Traced, weight: Any, reach: tuple[Any, ...], shape: tuple[int, ...], context: Context
) -> Layers:
    """Return how a convolution depends on its input."""
    stride, padding, dilation, is_transposed, groups = reach
    dims = len(operand.shape) - 2
    kernel = weight.shape[2:]
    stride, padding, dilation = (_per_dim(each, dims) for each in (stride, padding, dilation))
    channels = operand.shape[1] // groups
    outs = shape[1] // groups
    # (groups, out channels of a group, in channels, *kernel): whether the weight is nonzero.
    present = _present(weight, groups, is_transposed)
    grouped = (shape[0], groups, channels, *operand.shape[2:])
    collected: list[Layer] = []
    for layer in operand.layers:
        maps = layer.map.reshape(grouped)
        if is_transposed:
            # A transposed convolution is a convolution over the input with gaps.
            maps = _with_gaps(maps, stride, dims)
            pads = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
            steps = [1] * dims
        else:
            pads, steps = padding, stride
        for place, under in windows(maps, kernel, steps, pads, dilation, shape[2:]):
            used = tuple(k - 1 - at for k, at in zip(kernel, place, strict=True)) \
                if is_transposed else place  # fmt: skip
            collected += _per_channel(layer, under, present, used, outs)
    if len(collected) > MOST_LAYERS:
        full = (shape[0], groups, outs, *shape[2:])
        united = context.sets.union([tuple(collected)], full)
    else:
        united = tuple(collected)
    return tuple(Layer(layer.map.reshape(shape), layer.table) for layer in united)


def _per_channel(
    layer: Layer, under: Tensor, present: Tensor | None, place: tuple[int, ...], outs: int
) -> list[Layer]:
    """Return a layer for each input channel, over all output channels of its group."""
    batch, groups, channels, *sizes = under.shape
    found = []
    for channel in range(channels):
        wide = under[:, :, channel : channel + 1].expand(batch, groups, outs, *sizes)
        if present is not None:
            # (groups, outs) for this input channel and position.
            mask = present[(slice(None), slice(None), channel, *place)]
            if not bool(mask.any()):
                continue
            if not bool(mask.all()):
                view = (1, groups, outs, *(1,) * len(sizes))
                wide = torch.where(mask.view(view), wide, wide.new_full((), -1))
        found.append(Layer(wide, layer.table))
    return found


def _present(weight: Any, groups: int, is_transposed: bool) -> Tensor | None:
    """Return which weights are nonzero; None if all are.

    The shape is (groups, out channels of a group, in channels, *kernel).
    """
    if not isinstance(weight, Tensor) or bool((weight != 0).all()):
        return None
    grouped = (weight != 0).reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return grouped.transpose(1, 2) if is_transposed else grouped


def _with_gaps(maps: Tensor, stride: Sequence[int], dims: int) -> Tensor:
    sizes = maps.shape[maps.dim() - dims :]
    wide = [(size - 1) * step + 1 for size, step in zip(sizes, stride, strict=True)]
    spread = maps.new_full((*maps.shape[: maps.dim() - dims], *wide), -1)
    spread[(..., *(slice(None, None, step) for step in stride))] = maps
    return spread


@rule("convolution_backward")
def _convolution_backward(call: Call) -> list[Traced]:
    cotangent, operand, weight, _, stride, padding, dilation, is_transposed, _, groups, _ = (
        call.arguments
    )
    metas, context = call.metas, call.context
    shapes = [() if meta is None else tuple(meta.shape) for meta in metas]
    results = [Traced(shape) for shape in shapes]
    if metas[0] is not None:
        parts: list[Layers] = []
        if isinstance(cotangent, Traced):
            reach = (stride, padding, dilation, not is_transposed, groups)
            parts.append(_convolved(cotangent, weight, reach, shapes[0], context))
        if isinstance(weight, Traced):
            parts.append(_of_weights(weight, shapes[0], groups, not is_transposed, context))
        results[0] = Traced(shapes[0], context.sets.union(parts, shapes[0]))
    if metas[1] is not None:
        read = (operand, cotangent) if is_transposed else (cotangent, operand)
        results[1] = Traced(shapes[1], _by_channels(read, shapes[1], groups, context))
    if metas[2] is not None and isinstance(cotangent, Traced):
        dims = [dim for dim in range(len(cotangent.shape)) if dim != 1]
        kept = reduce_dims(cotangent, dims, context)
        results[2] = Traced(
            shapes[2], tuple(Layer(k.map.reshape(shapes[2]), k.table) for k in kept)
        )
    return results


@rule(
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"
)
def _pooling(call: Call) -> Any:
    name, arguments, context = call.name, call.arguments, call.context
    operand = arguments[0]
    dims = int(name[name.index("pool") + 4])
    kernel = _per_dim(arguments[1], dims)
    stride = _per_dim(arguments[2], dims) if len(arguments) > 2 and arguments[2] else kernel
    padding = _per_dim(arguments[3], dims) if len(arguments) > 3 else [0] * dims
    has_dilation = name.startswith("max") and len(arguments) > 4
    dilation = _per_dim(arguments[4], dims) if has_dilation else [1] * dims
    shape = shape_of(call.metas[0])
    layers = tuple(
        Layer(under, layer.table)
        for layer in operand.layers
        for _, under in windows(
            layer.map, kernel, stride, padding, dilation, shape[len(shape) - dims :]
        )
    )
    result = Traced(shape, context.sets.union([layers], shape))
    return result if call.has_one_result else [result, Traced(shape)]
