"""Products of stacks of vectors with matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from autodiff_core._programs.stack_operators import permute, reshape, transposed
from autodiff_core._programs.stacks import Stack, take, take_each
from autodiff_core._tensors.matrix_product import matrix_product

# A product with at most _FEW_TERMS terms and at least _MANY_RESULTS results takes about as long as
# writing its result, so each vector's product is written in place instead of computed together with
# the others and copied.
_FEW_TERMS = 32
_MANY_RESULTS = 2**15

# Batched products with a vector and at most this many terms take half the time when they are summed
# term by term, without the copy that a batched product needs (measured).
_FEW_COMPONENTS = 4

# For fewer columns than this, which is how many numbers a register holds, a batched product takes 2
# to 40 times as long as one product of all columns, with the copy of vectors whose columns are not
# lines of memory (measured).
_FEW_COLUMNS = 16


def times(stack: Stack, matrix: Tensor, shape: tuple[int, ...], out: Tensor | None = None) -> Stack:
    """Return the matrix products stack @ matrix.

    Args:
        stack: Each vector of shape (*batch, r, c).
        matrix: Shape (*batch, c, m) or (c, m).
        shape: The shape of one product, (*batch, r, m).
        out: Memory of shape (vectors, *shape) that may receive the products.
    """
    if stack.dim is None and matrix.dim() == 2:
        return Stack(_product(stack.data, matrix, out).reshape(stack.count, *shape), shape)
    last = len(stack.shape) - 1
    if stack.dim == last and stack.support is not None:
        if stack.diagonal and matrix.dim() == 2:
            # The product with one-hot vectors is a selection of rows.
            lines = take_each(matrix, 0, stack.support).squeeze(1)
            lines = lines.view(stack.count, *(1,) * last, -1) * stack.data
            return Stack(lines.reshape(stack.count, *shape), shape)
        matrix = take(matrix, -2, stack.support)
        return Stack(_product(stack.spread().data, matrix, out), shape)
    batch = matrix.dim() - 2
    if stack.diagonal and stack.dim is not None and stack.support is not None:
        if stack.dim < batch:
            matrices = take_each(matrix, stack.dim, stack.support)
            return replace(stack, data=torch.matmul(stack.data, matrices), shape=shape)
        return replace(stack, data=_product(stack.data, matrix), shape=shape)
    if stack.dim is not None and stack.support is not None and stack.dim < batch:
        matrix = take(matrix, stack.dim, stack.support)
    return Stack(_product(stack.data, matrix), shape, stack.dim, stack.support)


def contraction(
    factor: Tensor,
    shape: tuple[int, ...],
    kept: Sequence[int],
    summed: Sequence[int],
    added: Sequence[int],
    result: tuple[int, ...],
) -> Callable[[Stack], Stack]:
    """Return what sums the product of a stack with a constant over dimensions.

    Args:
        factor: The constant, of the shape of the product.
        shape: The shape of one vector, of as many dimensions.
        kept: The dimensions of both that are not summed.
        summed: Those that are.
        added: Those of the constant alone, of length 1 in the vectors.
        result: The shape of one sum.
    """
    order = (*kept, *summed, *added)
    lengths = [[factor.shape[dim] for dim in dims] for dims in (kept, summed, added)]
    batch, terms, columns = (torch.Size(each).numel() for each in lengths)
    matrix = factor.permute(order).reshape(*(() if batch == 1 else (batch,)), terms, columns)
    places = (*kept, *added)
    back = tuple(sorted(range(len(places)), key=places.__getitem__))
    lines = (1, terms) if batch == 1 else (batch, 1, terms)

    def apply(stack: Stack) -> Stack:
        turned = permute(reshape(stack, shape), order)
        product = times(reshape(turned, lines), matrix, (*lines[:-1], columns))
        whole = reshape(product, (*lengths[0], *lengths[2]))
        return reshape(permute(whole, back), result)

    return apply


def times_from_left(
    matrix: Tensor, stack: Stack, shape: tuple[int, ...], out: Tensor | None
) -> Stack:
    """Return the matrix products matrix @ stack; the arguments are those of `times`."""
    if stack.dim is None and matrix.dim() == 2:
        if out is None or not _is_bound_by_writing(matrix.shape[-1], math.prod(shape)):
            return Stack(_product_from_left(matrix, stack.data), shape)
        torch.bmm(matrix.expand(stack.count, *matrix.shape), stack.data, out=out)
        return Stack(out, shape)
    turned = (*shape[:-2], shape[-1], shape[-2])
    return transposed(times(transposed(stack), matrix.mT, turned))


def _product_from_left(matrix: Tensor, data: Tensor) -> Tensor:
    columns = data.transpose(0, 1)
    if data.dim() != 3 or not columns.is_contiguous():
        if data.shape[-1] >= _FEW_COLUMNS:
            return torch.matmul(matrix, data)
        turned = data.mT
        product = matrix_product(turned.flatten(0, -2), matrix.mT)
        return product.view(*turned.shape[:-1], len(matrix)).mT
    # The vectors' columns are adjacent in memory: compute one product for all.
    product = matrix_product(matrix, columns.flatten(1))
    return product.view(len(matrix), *columns.shape[1:]).transpose(0, 1)


def _is_bound_by_writing(terms: int, results: int) -> bool:
    return terms <= _FEW_TERMS and results >= _MANY_RESULTS


def _product(data: Tensor, matrix: Tensor, out: Tensor | None = None) -> Tensor:
    if matrix.dim() == 2:
        count, m = data.shape[0], matrix.shape[-1]
        lines = torch.Size(data.shape[1:-1]).numel()
        if out is not None and _is_bound_by_writing(matrix.shape[0], lines * m):
            each = data.reshape(count, lines, -1)
            torch.bmm(each, matrix.expand(count, *matrix.shape), out=out.view(count, lines, m))
            return out
        return matrix_product(data, matrix)
    batch = matrix.shape[:-2]
    *_, r, c = data.shape
    if 0 < c <= _FEW_COMPONENTS and 1 in (r, matrix.shape[-1]):
        return _sum_of_multiples(data, matrix)
    moved = data.movedim(0, -3).reshape(-1, data.shape[0] * r, c)
    product = torch.bmm(moved, matrix.reshape(-1, *matrix.shape[-2:]))
    return product.reshape(*batch, data.shape[0], r, matrix.shape[-1]).movedim(-3, 0)


def _sum_of_multiples(data: Tensor, matrix: Tensor) -> Tensor:
    """Return many products of a few components each, summed component by component."""
    total = data[..., :1] * matrix[..., :1, :]
    for component in range(1, data.shape[-1]):
        part = slice(component, component + 1)
        total = torch.addcmul(total, data[..., part], matrix[..., part, :])
    return total
