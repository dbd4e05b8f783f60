"""Linear combinations of stacks of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from autodiff_core._programs.stacks import (
    Index,
    Stack,
    aligned,
    as_tensor,
    same_index,
    take,
    take_each,
)
from autodiff_core._tensors.layouts import has_short_lines, is_planar, planar
from autodiff_core._tensors.linear_combination import (
    Coefficient,
    is_without_overlap,
    linear_combination,
)


def combine(
    stacks: Sequence[Stack | None],
    coefficients: Sequence[Coefficient],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    spare: Sequence[bool] = (),
) -> Stack:
    """Return the sum of stacks, each multiplied elementwise by a constant, with broadcasting.

    Args:
        stacks: The stacks; None for one that is zero, not for all.
        coefficients: A tensor that broadcasts to `shape`, a number, or None for the factor one.
        shape: The shape of one vector of the sum.
        dtype: The dtype of the sum.
        spare: Which stacks are not used again, so that the sum may overwrite their data.
    """
    present = [place for place, stack in enumerate(stacks) if stack is not None]
    if len(present) < len(stacks):
        coefficients = [coefficients[place] for place in present]
        spare = [spare[place] for place in present] if spare else spare
    found = [stack for stack in stacks if stack is not None]
    total = _combined(found, coefficients, shape, dtype, spare)
    is_shared = len(found) == 1 < len(stacks) and coefficients[0] is None
    # Later steps may overwrite a sum, but not what is its only term.
    return replace(total, data=total.data.clone()) if is_shared else total


def _combined(
    stacks: Sequence[Stack],
    coefficients: Sequence[Coefficient],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    spare: Sequence[bool],
) -> Stack:
    """Return the sum of stacks, none of which is known to be zero."""
    dim, support = None, None
    if any(stack.dim is not None or stack.shape != shape for stack in stacks):
        stacks = [aligned(stack, shape) for stack in stacks]
        if _are_diagonal_alike(stacks, shape):
            return _combined_diagonal(stacks, coefficients, shape, dtype)
        stacks = [stack.spread() for stack in stacks]
        shared = _on_one_support(stacks, shape)
        if shared is None:
            return _combined_in_full(stacks, coefficients, shape, dtype, spare)
        stacks, dim, support = shared, shared[0].dim, shared[0].support
    compact = shape
    if dim is not None and support is not None:
        compact = (*shape[:dim], len(support), *shape[dim + 1 :])
        coefficients = [_on_the_support(each, dim, support, shape) for each in coefficients]
    data = [stack.data for stack in stacks]
    if has_short_lines(shape) and any(_is_repeated(d, compact) or is_planar(d) for d in data):
        data = [each if each.shape[1:] == compact else planar(each) for each in data]
        coefficients = [_planar_factor(each, len(shape)) for each in coefficients]
    total = linear_combination(data, coefficients, spare)
    if total.shape[1:] != compact:
        total = total.expand(-1, *compact)
    return Stack(total if total.dtype == dtype else total.to(dtype), shape, dim, support)


def _combined_in_full(
    stacks: Sequence[Stack],
    coefficients: Sequence[Coefficient],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    spare: Sequence[bool],
) -> Stack:
    """Return the sum of stacks with different supports, each added on its own support."""
    in_full = [
        place
        for place, stack in enumerate(stacks)
        if stack.dim is None or stack.shape[stack.dim] != shape[stack.dim]
    ]
    count, like = stacks[0].count, stacks[0].data
    if in_full:
        data = [stacks[place].dense() for place in in_full]
        may_overwrite = [bool(spare) and spare[place] for place in in_full]
        total = linear_combination(data, [coefficients[place] for place in in_full], may_overwrite)
        is_own = len(data) > 1 or coefficients[in_full[0]] is not None or may_overwrite[0]
        is_whole = total.shape == (count, *shape) and total.dtype == dtype
        if not (is_own and is_whole and is_without_overlap(total)):
            total = _empty(like, count, shape, dtype).copy_(total)
    else:
        total = _empty(like, count, shape, dtype).zero_()
    for place, (stack, coefficient) in enumerate(zip(stacks, coefficients, strict=True)):
        if place not in in_full:
            _add_on_support(total, stack, coefficient)
    return Stack(total, shape)


def _empty(like: Tensor, count: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if not has_short_lines(shape):
        return like.new_empty((count, *shape), dtype=dtype)
    return like.new_empty((count, shape[-1], *shape[:-1]), dtype=dtype).movedim(1, -1)


def _is_repeated(data: Tensor, shape: tuple[int, ...]) -> bool:
    """Return whether data broadcast along another dimension than the last one."""
    return data.shape[1:-1] != shape[:-1]


def _planar_factor(coefficient: Coefficient, rank: int) -> Coefficient:
    if not isinstance(coefficient, Tensor) or coefficient.dim() < rank:
        return coefficient
    return planar(coefficient[None])[0]


def _add_on_support(total: Tensor, stack: Stack, coefficient: Coefficient) -> None:
    """Add a multiple of a stack to dense vectors of shape (vectors, *shape), in place."""
    dim, support = stack.dim, stack.support
    assert dim is not None
    assert support is not None
    coefficient = _on_the_support(coefficient, dim, support, tuple(total.shape[1:]))
    part = stack.data if coefficient is None else stack.data * coefficient
    if isinstance(support, range):
        total.narrow(dim + 1, support.start, len(support)).add_(part)
    else:
        part = part.expand(*total.shape[: dim + 1], -1, *total.shape[dim + 2 :])
        total.index_add_(dim + 1, support, part.to(total.dtype))


def _on_the_support(
    coefficient: Coefficient, dim: int, support: Index, shape: tuple[int, ...]
) -> Coefficient:
    if isinstance(coefficient, Tensor):
        own = dim - len(shape) + coefficient.dim()
        if own >= 0 and coefficient.shape[own] != 1:
            return take(coefficient, own, support)
    return coefficient


def _are_diagonal_alike(stacks: Sequence[Stack], shape: tuple[int, ...]) -> bool:
    first = stacks[0]
    return all(
        stack.diagonal
        and stack.dim is not None
        and stack.dim == first.dim
        and stack.shape[stack.dim] == shape[stack.dim]
        and same_index(stack.support, first.support)
        for stack in stacks
    )


def _combined_diagonal(
    stacks: Sequence[Stack],
    coefficients: Sequence[Coefficient],
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Stack:
    """Return the sum of diagonal stacks with the same positions."""
    first = stacks[0]
    factors = [_on_the_diagonal(each, first, len(shape)) for each in coefficients]
    total = linear_combination([stack.data for stack in stacks], factors)
    whole = replace(first, shape=shape)
    data = total.expand(-1, *whole.compact_shape())
    return replace(whole, data=data if data.dtype == dtype else data.to(dtype))


def _on_the_diagonal(coefficient: Coefficient, stack: Stack, rank: int) -> Coefficient:
    if not isinstance(coefficient, Tensor):
        return coefficient
    assert stack.dim is not None
    assert stack.support is not None
    whole = coefficient.reshape(*(1,) * (rank - coefficient.dim()), *coefficient.shape)
    if whole.shape[stack.dim] == 1:
        return whole
    return take_each(whole, stack.dim, stack.support)


def _on_one_support(stacks: Sequence[Stack], shape: tuple[int, ...]) -> list[Stack] | None:
    """Return the stacks on a common support, or dense if all are; None if there is none."""
    first = stacks[0]
    dim = first.dim
    if dim is not None and all(s.dim == dim and s.shape[dim] == shape[dim] for s in stacks):
        if all(same_index(s.support, first.support) for s in stacks[1:]):
            return list(stacks)
        joined = _joined([s.support for s in stacks])
        if joined is not None and len(joined) < shape[dim]:
            return [_on_range(s, joined) for s in stacks]
        device = first.data.device
        parts = [as_tensor(s.support, device) for s in stacks if s.support is not None]
        union = torch.unique(torch.cat(parts))
        if len(union) < shape[dim]:
            return [_on_support(s, union, part) for s, part in zip(stacks, parts, strict=True)]
    return list(stacks) if all(stack.dim is None for stack in stacks) else None


def _joined(supports: Sequence[Index | None]) -> range | None:
    """Return the union of ranges; None if it has gaps, or if some are no ranges."""
    ranges = sorted((s for s in supports if isinstance(s, range)), key=lambda s: s.start)
    union = ranges[0] if len(ranges) == len(supports) else None
    for each in ranges[1:]:
        if union is None or each.start > union.stop:
            return None
        union = range(union.start, max(union.stop, each.stop))
    return union


def _on_range(stack: Stack, support: range) -> Stack:
    assert stack.dim is not None
    assert isinstance(stack.support, range)
    before, after = stack.support.start - support.start, support.stop - stack.support.stop
    if not (before or after):
        return stack
    pads = [0, 0] * (len(stack.shape) - stack.dim - 1) + [before, after]
    return replace(stack, data=functional.pad(stack.data, pads), support=support)


def _on_support(stack: Stack, support: Tensor, own: Tensor) -> Stack:
    assert stack.dim is not None
    if len(own) == len(support):
        return replace(stack, support=support)
    compact = list(stack.data.shape)
    compact[stack.dim + 1] = len(support)
    where = torch.searchsorted(support, own)
    data = stack.data.new_zeros(compact).index_copy_(stack.dim + 1, where, stack.data)
    return replace(stack, data=data, support=support)
