"""Rules for operators that contract: matrix products, convolutions, pooling, scattered sums."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, fx

from autodiff_core.sparse._detection.index_sets import MOST_LAYERS, Layer, Layers
from autodiff_core.sparse._detection.interpreter import Context, Traced
from autodiff_core.sparse._detection.reductions import reduce_dims

MOST_VISITS = 50_000_000
"""How many products a structured matrix product may have before it is taken for a full one."""


def _matrix_product(
    name: str, arguments: Sequence[Any], keywords: Any, node: fx.Node, context: Context
) -> Traced:
    left, right = arguments[0], arguments[1]
    shape = tuple(node.meta["tensor_meta"].shape)
    transposed = _swapped(left), _swapped(right)
    first = _half_product(left, right, shape, context)
    # The right factor of A B is the left one of its transpose.
    other = _half_product(
        transposed[1], transposed[0], (*shape[:-2], shape[-1], shape[-2]), context
    )
    second = tuple(Layer(layer.map.transpose(-1, -2), layer.table) for layer in other)
    return Traced(shape, context.sets.union([first, second], shape))


def _half_product(
    left: Tensor | Traced, right: Tensor | Traced, shape: tuple[int, ...], context: Context
) -> Layers:
    """What a product owes to its left factor."""
    if not isinstance(left, Traced) or not left.layers:
        return ()
    if isinstance(right, Tensor):
        present = right != 0
        count = int(present.sum())
        if count < present.numel() and count * shape[-2] <= MOST_VISITS:
            return _structured_product(left, present, shape, context)
    layers = reduce_dims(left, [-1], context)
    return tuple(Layer(layer.map.expand(shape), layer.table) for layer in layers)


def _structured_product(
    left: Traced, present: Tensor, shape: tuple[int, ...], context: Context
) -> Layers:
    """The product with a constant matrix that has zeros: they carry nothing."""
    rows, inner = left.shape[-2:]
    # In the order (batch, column, inner).
    found = present.transpose(-1, -2).reshape(-1, present.shape[-1], inner).nonzero()
    batch, column, place = found.unbind(1)
    columns = present.shape[-1]
    batches = math.prod(shape[:-2])
    per_batch = torch.bincount(batch * columns + column, minlength=batches * columns)
    starts_of_column = torch.cat([per_batch.new_zeros(1), per_batch.cumsum(0)])
    members, counts = [], []
    for number in range(batches):
        begin, end = (
            int(starts_of_column[number * columns]),
            int(starts_of_column[(number + 1) * columns]),
        )
        reads = place[begin:end]
        base = (number * rows + torch.arange(rows)[:, None]) * inner
        members.append((base + reads).reshape(-1))
        counts.append(per_batch[number * columns : (number + 1) * columns].repeat(rows))
    every = torch.cat(counts)
    starts = torch.cat([every.new_zeros(1), every.cumsum(0)])
    united = context.sets.grouped(left.layers, starts, torch.cat(members))
    return tuple(Layer(layer.map.view(shape), layer.table) for layer in united)


def _swapped(factor: Tensor | Traced) -> Any:
    if isinstance(factor, Tensor):
        return factor.transpose(-1, -2)
    shape = (*factor.shape[:-2], factor.shape[-1], factor.shape[-2])
    return Traced(
        shape, tuple(Layer(layer.map.transpose(-1, -2), layer.table) for layer in factor.layers)
    )


def windows(
    maps: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    sizes: Sequence[int],
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """For each place of a kernel the elements under it, shape (*leading, *sizes)."""
    # Wide enough at the end for every place; what is cut off lies in the padding.
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


def _convolution(
    name: str, arguments: Sequence[Any], keywords: Any, node: fx.Node, context: Context
) -> Traced:
    operand, weight, bias, stride, padding, dilation, is_transposed, _, groups = arguments
    shape = tuple(node.meta["tensor_meta"].shape)
    parts: list[Layers] = []
    if isinstance(operand, Traced):
        reach = (stride, padding, dilation, bool(is_transposed), groups)
        parts.append(_convolved(operand, weight, reach, shape, context))
    if isinstance(weight, Traced):
        # An element reads the whole kernel of its channel.
        channel = Traced(weight.shape, weight.layers)
        if is_transposed:
            parts.append(context.everything([weight], shape))
        else:
            kept = reduce_dims(channel, range(1, len(weight.shape)), context)
            view = (1, shape[1], *(1,) * (len(shape) - 2))
            parts.append(tuple(Layer(k.map.reshape(view).expand(shape), k.table) for k in kept))
    if isinstance(bias, Traced):
        view = (1, shape[1], *(1,) * (len(shape) - 2))
        parts.append(tuple(Layer(b.map.reshape(view).expand(shape), b.table) for b in bias.layers))
    return Traced(shape, context.sets.union(parts, shape))


def _convolved(
    operand: Traced, weight: Any, reach: tuple[Any, ...], shape: tuple[int, ...], context: Context
) -> Layers:
    """What a convolution owes to its input."""
    stride, padding, dilation, is_transposed, groups = reach
    dims = len(operand.shape) - 2
    kernel = weight.shape[2:]
    stride, padding, dilation = (_per_dim(each, dims) for each in (stride, padding, dilation))
    channels = operand.shape[1] // groups
    outs = shape[1] // groups
    # (out channels of a group, in channels, kernel): whether the weight can be other than zero.
    present = _present(weight, groups, is_transposed)
    grouped = (shape[0], groups, channels, *operand.shape[2:])
    collected: list[Layer] = []
    for layer in operand.layers:
        maps = layer.map.reshape(grouped)
        if is_transposed:
            # The adjoint of a convolution is one over the input with gaps.
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
    """One layer for each input channel, over all output channels of its group."""
    batch, groups, channels, *sizes = under.shape
    found = []
    for channel in range(channels):
        wide = under[:, :, channel : channel + 1].expand(batch, groups, outs, *sizes)
        if present is not None:
            # (groups, outs) of this input channel and place.
            mask = present[(slice(None), slice(None), channel, *place)]
            if not bool(mask.any()):
                continue
            if not bool(mask.all()):
                view = (1, groups, outs, *(1,) * len(sizes))
                wide = torch.where(mask.view(view), wide, wide.new_full((), -1))
        found.append(Layer(wide, layer.table))
    return found


def _present(weight: Any, groups: int, is_transposed: bool) -> Tensor | None:
    """(groups, out channels, in channels, *kernel): which weights are not zero; None for all."""
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


def _convolution_backward(
    name: str, arguments: Sequence[Any], keywords: Any, node: fx.Node, context: Context
) -> list[Traced]:
    cotangent, operand, weight, _, stride, padding, dilation, is_transposed, _, groups, _ = (
        arguments
    )
    metas = node.meta["tensor_meta"]
    shapes = [() if meta is None else tuple(meta.shape) for meta in metas]
    results = [Traced(shape) for shape in shapes]
    if metas[0] is not None:
        parts: list[Layers] = []
        if isinstance(cotangent, Traced):
            reach = (stride, padding, dilation, not is_transposed, groups)
            parts.append(_convolved(cotangent, weight, reach, shapes[0], context))
        if isinstance(weight, Traced):
            parts.append(context.everything([weight], shapes[0]))
        results[0] = Traced(shapes[0], context.sets.union(parts, shapes[0]))
    if metas[1] is not None:
        results[1] = Traced(shapes[1], context.everything([cotangent, operand], shapes[1]))
    if metas[2] is not None and isinstance(cotangent, Traced):
        dims = [dim for dim in range(len(cotangent.shape)) if dim != 1]
        kept = reduce_dims(cotangent, dims, context)
        results[2] = Traced(
            shapes[2], tuple(Layer(k.map.reshape(shapes[2]), k.table) for k in kept)
        )
    return results


def _pooling(
    name: str, arguments: Sequence[Any], keywords: Any, node: fx.Node, context: Context
) -> Any:
    operand = arguments[0]
    dims = int(name[name.index("pool") + 4])
    kernel = _per_dim(arguments[1], dims)
    stride = _per_dim(arguments[2], dims) if len(arguments) > 2 and arguments[2] else kernel
    padding = _per_dim(arguments[3], dims) if len(arguments) > 3 else [0] * dims
    has_dilation = name.startswith("max") and len(arguments) > 4
    dilation = _per_dim(arguments[4], dims) if has_dilation else [1] * dims
    metas = node.meta["tensor_meta"]
    shape = tuple((metas if hasattr(metas, "dtype") else metas[0]).shape)
    layers = tuple(
        Layer(under, layer.table)
        for layer in operand.layers
        for _, under in windows(
            layer.map, kernel, stride, padding, dilation, shape[len(shape) - dims :]
        )
    )
    result = Traced(shape, context.sets.union([layers], shape))
    return result if hasattr(metas, "dtype") else [result, Traced(shape)]


def _scattered_sum(
    name: str, arguments: Sequence[Any], keywords: Any, node: fx.Node, context: Context
) -> Traced:
    """What is added to chosen places: each depends on all that is added there."""
    base, shape = arguments[0], tuple(node.meta["tensor_meta"].shape)
    places = torch.arange(math.prod(shape)).view(shape)
    if name == "scatter_add":
        _, dim, index, source = arguments
        if isinstance(index, Traced):
            raise NotImplementedError
        covered = places[tuple(slice(0, size) for size in _but(index.shape, shape, dim))]
        targets = torch.gather(covered, dim, index) if shape else places
        source = _narrowed(source, tuple(index.shape))
    else:
        _, indices, source = arguments[:3]
        if any(isinstance(index, Traced) for index in indices):
            raise NotImplementedError
        targets = torch.ops.aten.index.Tensor(places, indices)
    parts = [base.layers] if isinstance(base, Traced) else []
    if isinstance(source, Traced) and source.layers:
        from autodiff_core.sparse._detection.rules import broadcast

        layers = broadcast(source, tuple(targets.shape), context)
        parts.append(_gathered(layers, targets.reshape(-1), shape, context))
    return Traced(shape, context.sets.union(parts, shape))


def _but(index: Sequence[int], shape: Sequence[int], dim: int) -> list[int]:
    sizes = list(index)
    if sizes:
        sizes[dim % len(sizes)] = shape[dim % len(sizes)]
    return sizes


def _narrowed(source: Any, shape: tuple[int, ...]) -> Any:
    if not isinstance(source, Traced):
        return source
    cut = tuple(slice(0, size) for size in shape)
    return Traced(shape, tuple(Layer(layer.map[cut], layer.table) for layer in source.layers))


def _gathered(layers: Layers, targets: Tensor, shape: tuple[int, ...], context: Context) -> Layers:
    """From sources with targets to what each place of the result receives."""
    size = math.prod(shape)
    counts = torch.bincount(targets, minlength=size)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    order = torch.argsort(targets, stable=True)
    most = int(counts.max()) if size else 0
    if most * len(layers) > MOST_LAYERS:
        united = context.sets.grouped(layers, starts, order)
        return tuple(Layer(layer.map.view(shape), layer.table) for layer in united)
    flat = [Layer(layer.map.reshape(-1), layer.table) for layer in layers]
    # The first source of each place makes one layer, the second another.
    ranked = []
    rank = torch.arange(len(targets)) - starts[targets[order]]
    for turn in range(most):
        source = torch.full((size,), -1, dtype=torch.int64)
        chosen = order[rank == turn]
        source[targets[chosen]] = chosen
        ranked.append(source.view(shape))
    return tuple(
        Layer(
            torch.where(source < 0, layer.map.new_full((), -1), layer.map[source.clamp(min=0)]),
            layer.table,
        )
        for source in ranked
        for layer in flat
    )


CONTRACTIONS = {
    "bmm": _matrix_product,
    "mm": _matrix_product,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "index_put": _scattered_sum,
    "scatter_add": _scattered_sum,
    "_unsafe_index_put": _scattered_sum,
    "avg_pool1d": _pooling,
    "avg_pool2d": _pooling,
    "avg_pool3d": _pooling,
    "max_pool2d_with_indices": _pooling,
    "max_pool3d_with_indices": _pooling,
}  # fmt: skip
