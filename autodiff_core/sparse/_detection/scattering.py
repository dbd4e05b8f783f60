"""Detection rules for sums that are scattered to chosen places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.elementwise import broadcast
from autodiff_core.sparse._detection.index_sets import MOST_LAYERS, Layer, Layers
from autodiff_core.sparse._detection.registry import Call, rule


@rule("index_put", "scatter_add", "_unsafe_index_put")
def _scattered_sum(call: Call) -> Any:
    """Return the dependence of each place on everything that is added to it."""
    arguments, shape, context = call.arguments, call.shape, call.context
    base = arguments[0]
    places = torch.arange(math.prod(shape)).view(shape)
    if call.name == "scatter_add":
        _, dim, index, source = arguments
        if isinstance(index, Traced):
            return NotImplemented
        covered = places[tuple(slice(0, size) for size in _but(index.shape, shape, dim))]
        targets = torch.gather(covered, dim, index) if shape else places
        source = _narrowed(source, tuple(index.shape))
    else:
        _, indices, source = arguments[:3]
        if any(isinstance(index, Traced) for index in indices):
            return NotImplemented
        targets = torch.ops.aten.index.Tensor(places, indices)
    parts = [base.layers] if isinstance(base, Traced) else []
    if isinstance(source, Traced) and source.layers:
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
    """Return what each place of the result receives from sources with target places."""
    size = math.prod(shape)
    counts = torch.bincount(targets, minlength=size)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    order = torch.argsort(targets, stable=True)
    most = int(counts.max()) if size else 0
    if most * len(layers) > MOST_LAYERS:
        united = context.sets.grouped(layers, starts, order)
        return tuple(Layer(layer.map.view(shape), layer.table) for layer in united)
    flat = [Layer(layer.map.reshape(-1), layer.table) for layer in layers]
    # The first sources of all places form one layer, the second sources another, and so on.
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
