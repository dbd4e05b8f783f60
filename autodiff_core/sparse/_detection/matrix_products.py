"""Detection rules for matrix products."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.index_sets import Layer, Layers
from autodiff_core.sparse._detection.reductions import reduce_dims
from autodiff_core.sparse._detection.registry import Call, rule

_MOST_VISITS = 50_000_000
"""The largest number of multiplications for which zeros in a matrix product are exploited."""


@rule("bmm", "mm")
def _matrix_product(call: Call) -> Traced:
    left, right = call.arguments[:2]
    shape, context = call.shape, call.context
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
    """Return how a product depends on its left factor."""
    if not isinstance(left, Traced) or not left.layers:
        return ()
    if isinstance(right, Tensor):
        present = right != 0
        count = int(present.sum())
        if count < present.numel() and count * shape[-2] <= _MOST_VISITS:
            return _structured_product(left, present, shape, context)
    layers = reduce_dims(left, [-1], context)
    return tuple(Layer(layer.map.expand(shape), layer.table) for layer in layers)


def _structured_product(
    left: Traced, present: Tensor, shape: tuple[int, ...], context: Context
) -> Layers:
    """Return how a product with a constant matrix depends on the left factor, without its zeros."""
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
