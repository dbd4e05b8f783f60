"""Detection rules for matrix products."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.elementwise import elementwise, presence
from autodiff_core.sparse._detection.index_sets import Layer, Layers
from autodiff_core.sparse._detection.reductions import reduce_dims
from autodiff_core.sparse._detection.registry import Call, rule

_MOST_VISITS = 50_000_000
"""The largest number of multiplications for which zeros in a matrix product are exploited."""


@rule("bmm", "mm")
def _matrix_product(call: Call) -> Any:
    left, right = call.arguments[:2]
    if _is_sparse(left) or _is_sparse(right):
        return _sparse_product(call)
    shape, context = call.shape, call.context
    transposed = _swapped(left), _swapped(right)
    first = _half_product(left, presence(right, 1, call), shape, context)
    # The right factor of A B is the left one of its transpose.
    of_left = presence(left, 0, call)
    of_left = of_left if isinstance(of_left, bool) else of_left.transpose(-1, -2)
    swapped = (*shape[:-2], shape[-1], shape[-2])
    other = _half_product(transposed[1], of_left, swapped, context)
    second = tuple(Layer(layer.map.transpose(-1, -2), layer.table) for layer in other)
    return Traced(shape, context.sets.union([first, second], shape))


@rule("_sparse_addmm", "_sparse_mm", "addmm", "mv")
def _sparse_product(call: Call) -> Any:
    """Return the dependence of a product of a constant sparse matrix and a dense one."""
    has_summand = call.name.endswith("addmm")
    added = call.arguments[0] if has_summand else None
    matrix, dense = call.arguments[1:3] if has_summand else call.arguments[:2]
    if not _is_sparse(matrix) or not isinstance(dense, Traced) or matrix.dim() != 2:
        return NotImplemented
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of their beta state
        rows = matrix.to_sparse_csr()
    indptr, indices = rows.crow_indices(), rows.col_indices()
    context, shape = call.context, call.shape
    columns = shape[1] if len(shape) == 2 else 1
    # The entries of a row, once for each column of the dense matrix.
    counts = indptr.diff().repeat_interleave(columns)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    row = torch.arange(len(counts)).repeat_interleave(counts)
    entry = indptr[row // columns] + torch.arange(int(starts[-1])) - starts[row]
    members = indices[entry] * columns + row % columns
    united = context.sets.grouped(dense.layers, starts.long(), members.long())
    layers = tuple(Layer(layer.map.view(shape), layer.table) for layer in united)
    result = Traced(shape, layers)
    return elementwise([result, added], shape, context) if added is not None else result


def _is_sparse(factor: Any) -> bool:
    return isinstance(factor, Tensor) and factor.layout is not torch.strided


def _half_product(
    left: Tensor | Traced, present: Tensor | bool, shape: tuple[int, ...], context: Context
) -> Layers:
    """Return how a product depends on its left factor, given where the right one is not zero."""
    if not isinstance(left, Traced) or not left.layers or present is False:
        return ()
    if isinstance(present, Tensor) and int(present.sum()) * shape[-2] <= _MOST_VISITS:
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
