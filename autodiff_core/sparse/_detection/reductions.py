"""Detection rules for operators along dimensions: sums, products, extrema, running sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.index_sets import MOST_LAYERS, Layer, Layers
from autodiff_core.sparse._detection.registry import Call, rule, shape_of


def reduce_dims(operand: Traced, dims: Sequence[int], context: Context) -> Layers:
    """Return the union along dimensions, which are kept with size 1."""
    shape = operand.shape
    dims = sorted({dim % len(shape) for dim in dims}) if shape else []
    # Along expanded dimensions one element represents all.
    layers = operand.layers
    kept = tuple(1 if dim in dims else size for dim, size in enumerate(shape))
    sizes = [
        1 if all(layer.map.stride(dim) == 0 for layer in layers) else shape[dim] for dim in dims
    ]
    if 0 in shape:
        return ()
    group = math.prod(sizes)
    narrowed = list(layers)
    for dim, size in zip(dims, sizes, strict=True):
        narrowed = [Layer(layer.map.narrow(dim, 0, size), layer.table) for layer in narrowed]
    if group * len(layers) <= MOST_LAYERS:
        for dim, size in zip(dims, sizes, strict=True):
            narrowed = [
                Layer(layer.map.narrow(dim, place, 1), layer.table)
                for layer in narrowed
                for place in range(size)
            ]
        return context.sets.union([tuple(narrowed)], kept)
    others = [dim for dim in range(len(shape)) if dim not in dims]
    flat = [Layer(layer.map.permute(*others, *dims).reshape(-1), layer.table) for layer in narrowed]
    groups = math.prod(kept)
    starts = torch.arange(groups + 1) * group
    united = context.sets.grouped(tuple(flat), starts, torch.arange(groups * group))
    return tuple(Layer(layer.map.view(kept), layer.table) for layer in united)


@rule(
    "amax", "amin", "kthvalue", "linalg_vector_norm", "logsumexp", "max", "mean", "median", "min",
    "nanmean", "nansum", "norm", "prod", "std", "std_mean", "sum", "var", "var_mean",
)  # fmt: skip
def _reduction(call: Call) -> Any:
    layers = reduce_dims(call.arguments[0], _dims(call), call.context)
    results = [_shaped(layers, shape_of(meta)) for meta in call.metas]
    if call.has_one_result:
        return results[0]
    # The position of an extremum has no derivative.
    is_extremum = call.name in ("kthvalue", "max", "median", "min")
    return [results[0], Traced(results[1].shape)] if is_extremum else results


def _dims(call: Call) -> list[int]:
    arguments = call.arguments
    position = 2 if call.name in ("norm", "linalg_vector_norm", "kthvalue") else 1
    given = arguments[position] if len(arguments) > position else call.keywords.get("dim")
    if isinstance(given, bool) or given is None or given == []:
        return list(range(len(arguments[0].shape)))
    if isinstance(given, int):
        return [given]
    return list(given)


def _shaped(layers: Layers, shape: tuple[int, ...]) -> Traced:
    return Traced(shape, tuple(Layer(layer.map.reshape(shape), layer.table) for layer in layers))


@rule("_log_softmax", "_softmax", "cummax", "cummin", "sort", "topk")
def _along(call: Call) -> Any:
    """Return the dependence of results each element of which may read a whole line."""
    name, arguments = call.name, call.arguments
    dim = -1
    if name == "topk" and len(arguments) > 2:
        dim = arguments[2]
    elif name != "topk" and len(arguments) > 1:
        dim = arguments[1]
    dim = call.keywords.get("dim", dim)
    if not isinstance(dim, int) or isinstance(dim, bool):
        return NotImplemented
    layers = reduce_dims(arguments[0], [dim], call.context)
    results = [
        Traced(
            shape_of(part),
            tuple(Layer(layer.map.expand(shape_of(part)), layer.table) for layer in layers)
            if part is not None and part.dtype.is_floating_point
            else (),
        )
        for part in call.metas
    ]
    return results[0] if call.has_one_result else results


@rule("cumprod", "cumsum", "logcumsumexp")
def _running(call: Call) -> Traced:
    """Return the dependence of a running sum or product, which reads the line up to itself."""
    operand, dim = call.arguments[:2]
    if not operand.shape:
        return operand
    dim %= len(operand.shape)
    size = operand.shape[dim]
    before = math.prod(operand.shape[:dim])
    after = math.prod(operand.shape[dim + 1 :])
    place, column = torch.arange(size), torch.arange(after)
    # The reads of one line, then all lines interleaved in the order of the elements.
    line = torch.repeat_interleave(place, place + 1)
    reads = torch.arange(len(line)) - torch.cumsum(place, 0)[line]
    key = line * after + column[:, None]
    order = torch.argsort(key.reshape(-1), stable=True)
    one = (reads * after + column[:, None]).reshape(-1)[order]
    members = (torch.arange(before)[:, None] * (size * after) + one).reshape(-1)
    counts = (place + 1).repeat_interleave(after).repeat(before)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(counts, 0)])
    united = call.context.sets.grouped(operand.layers, starts, members)
    return _shaped(united, operand.shape)
