"""Rules for operators that contract: matrix products, convolutions, pooling, scattered sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from autodiff_core.sparse._detection.convolutions import (
    _convolution,
    _convolution_backward,
    _pooling,
)
from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.index_sets import MOST_LAYERS, Layer, Layers
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
        from autodiff_core.sparse._detection.elementwise import broadcast

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
