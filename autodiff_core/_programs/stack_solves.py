"""Solutions of linear systems of which stacks of vectors are the right-hand sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from autodiff_core._programs.stacks import Stack, aligned, take


def is_single(matrix: Tensor) -> bool:
    """Return whether a batch of matrices, of shape (*batch, n, n), has one element."""
    return matrix.shape[:-2].numel() == 1


def solved(
    stack: Stack,
    solve: Callable[..., Tensor],
    matrices: Sequence[Tensor],
    shape: tuple[int, ...],
    left: bool,
) -> Stack:
    """Return the solutions of linear systems, by one call for all vectors.

    Args:
        stack: The right-hand sides, each of shape (*batch, n, m).
        solve: Returns the solutions for right-hand sides and `matrices`.
        matrices: What the matrices are factorized into: the first of shape (*batch, n, n), others
            with the same batch.
        shape: The shape of one solution, which the batches are broadcast to.
        left: Whether the matrix of a system is the left factor, so that the columns of the
            right-hand sides are independent; otherwise their rows are.
    """
    rank, batch = len(shape), matrices[0].dim() - 2
    stack = aligned(stack, shape).spread()
    if stack.dim == rank - (2 if left else 1):
        stack = Stack(stack.dense(), stack.shape)
    if is_single(matrices[0]):
        alone = [each.reshape(each.shape[batch:]) for each in matrices]
        return replace(stack, data=_of_one(stack.data, solve, alone, left), shape=shape)
    if stack.dim is not None and stack.support is not None and stack.dim < rank - 2:
        place = stack.dim - (rank - 2 - batch)
        if place >= 0 and matrices[0].shape[place] > 1:
            if stack.shape[stack.dim] == 1:  # one right-hand side for several matrices
                stack = Stack(stack.dense(), stack.shape)
            else:
                matrices = [take(each, place, stack.support) for each in matrices]
    where = -2 if left else -3
    moved = stack.data.movedim(0, where)
    found = solve(moved.flatten(where, where + 1), *matrices)
    found = found.unflatten(where + 1, moved.shape[where : where + 2 or None])
    return replace(stack, data=found.movedim(where, 0), shape=shape)


def _of_one(
    data: Tensor, solve: Callable[..., Tensor], matrices: Sequence[Tensor], left: bool
) -> Tensor:
    """Return the solutions of systems with one matrix, data being of shape (..., n, m)."""
    if left:
        # LAPACK's columns are adjacent in memory.
        return _of_one(data.mT, lambda lines: solve(lines.mT, *matrices).mT, (), left=False).mT
    # In the order of memory, lines need no copy.
    order = sorted(range(data.dim() - 1), key=data.stride, reverse=True)
    lines = data.permute(*order, -1)
    found = solve(lines.flatten(0, -2), *matrices).reshape(lines.shape)
    return found.permute(*(order.index(dim) for dim in range(len(order))), -1)
