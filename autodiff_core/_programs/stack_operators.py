"""Stacks of tensors that are zero outside a known range along one dimension.

A stack of one-hot vectors is almost entirely zero, and stays so through many operators: a scaling
keeps the support, a gather or a shift moves it, a product along another dimension leaves it
unchanged. The operators in this module compute on the support only. All are linear in the stack;
their constant arguments have the shapes of one vector.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autodiff_core._programs.flat import FEW_ELEMENTS
from autodiff_core._programs.stacks import Index, Stack, aligned, dense_stack, same_index, take
from autodiff_core._tensors.layouts import memory_order
from autodiff_core._tensors.transformations import batched


def reshape(stack: Stack, shape: tuple[int, ...]) -> Stack:
    """Return a stack in another shape with as many elements."""
    if shape == stack.shape:
        return stack
    if stack.dim is None:
        return Stack(stack.data.reshape(stack.count, *shape), shape)
    before = torch.Size(stack.shape[: stack.dim]).numel()
    size = stack.shape[stack.dim]
    for dim, length in enumerate(shape):
        if torch.Size(shape[:dim]).numel() != before or not size:
            continue
        if length < size:
            split = _divided(stack, shape, dim)
            if split is not None:
                return split
            continue
        inner, rest = divmod(length, size)
        if not rest:
            return _merged(stack, shape, dim, inner)
    return Stack(stack.dense().reshape(stack.count, *shape), shape)


def _merged(stack: Stack, shape: tuple[int, ...], dim: int, inner: int) -> Stack:
    """Return a stack in a shape where each position of its support has become `inner` positions."""
    stack = stack if inner == 1 else stack.spread()
    support = stack.support
    if isinstance(support, range):
        support = range(support.start * inner, support.stop * inner)
    elif support is not None and inner > 1:
        each = torch.arange(inner, device=support.device)
        support = (support[:, None] * inner + each).flatten()
    moved = replace(stack, shape=shape, dim=dim, support=support)
    return replace(moved, data=stack.data.reshape(stack.count, *moved.compact_shape()))


def _divided(stack: Stack, shape: tuple[int, ...], dim: int) -> Stack | None:
    """Return a stack in a shape where its support's dimension has become several.

    None if the support is not a range of whole positions of the first of them.
    """
    assert stack.dim is not None
    length, support = shape[dim], stack.support
    inner, rest = divmod(stack.shape[stack.dim], length or 1)
    end = dim + 1
    while end < len(shape) and torch.Size(shape[dim + 1 : end]).numel() < inner:
        end += 1
    is_split = torch.Size(shape[dim + 1 : end]).numel() == inner and not rest
    if stack.diagonal or not is_split or not isinstance(support, range):
        return None
    if support.start % inner or support.stop % inner:
        return None
    moved = Stack(stack.data, shape, dim, range(support.start // inner, support.stop // inner))
    return replace(moved, data=stack.data.reshape(stack.count, *moved.compact_shape()))


def permute(stack: Stack, dims: tuple[int, ...]) -> Stack:
    """Return a stack with the dimensions in another order."""
    shape = tuple(stack.shape[dim] for dim in dims)
    dim = None if stack.dim is None else dims.index(stack.dim)
    data = stack.data.permute(0, *(dim + 1 for dim in dims))
    return replace(stack, data=data, shape=shape, dim=dim)


def expand(stack: Stack, shape: tuple[int, ...]) -> Stack:
    """Return a stack repeated along dimensions of length 1 and new leading dimensions."""
    stack = aligned(stack, shape)
    moved = replace(stack, shape=shape)
    compact = shape if stack.dim is None else moved.compact_shape()
    return replace(moved, data=stack.data.expand(-1, *compact))


def total(stack: Stack, dims: tuple[int, ...], keepdim: bool) -> Stack:
    """Return a stack summed over dimensions."""
    data = _summed(stack.data, [dim + 1 for dim in dims], keepdim) if dims else stack.data
    shape = tuple(
        1 if dim in dims else size
        for dim, size in enumerate(stack.shape)
        if keepdim or dim not in dims
    )
    if stack.dim is None or stack.dim in dims:
        return Stack(data, shape)
    dim = stack.dim if keepdim else stack.dim - sum(other < stack.dim for other in dims)
    return replace(stack, data=data, shape=shape, dim=dim)


def _summed(data: Tensor, dims: list[int], keepdim: bool) -> Tensor:
    """Return a sum over dimensions; torch's takes several times as long in another order."""
    order = memory_order(data)
    if order == list(range(data.dim())):
        return data.sum(dims, keepdim=keepdim)
    places = [order.index(dim) for dim in range(data.dim())]
    total = data.permute(order).sum([places[dim] for dim in dims], keepdim=True).permute(places)
    return total if keepdim else total.squeeze(dims)


@dataclass
class Gather:
    """Positions to gather along a dimension, with their inverse.

    Attributes:
        index: The positions, int64 (taken,).
    """

    index: Tensor
    _ordered: tuple[Tensor, Tensor] | None = None
    _positions: list[int] | None = None

    def taken_from(self, support: Index) -> tuple[Tensor, Tensor]:
        """Return which gathered positions lie in a support, ascending, and where in it they lie."""
        ordered, order = self._in_order()
        if isinstance(support, range):
            ends = torch.tensor([support.start, support.stop], device=self.index.device)
            first, last = torch.searchsorted(ordered, ends).tolist()
            taken, places = torch.sort(order[first:last])
            return taken, ordered[first:last][places] - support.start
        low = torch.searchsorted(ordered, support)
        high = torch.searchsorted(ordered, support, right=True)
        lengths = high - low
        within = torch.repeat_interleave(lengths)
        ends = lengths.cumsum(0)
        offsets = torch.arange(len(within), device=within.device) - (ends - lengths)[within]
        taken, places = torch.sort(order[low[within] + offsets])
        return taken, within[places]

    def reaches(self, support: range) -> bool:
        """Return whether a gathered position lies in a range."""
        if self._positions is None:
            self._positions = self._in_order()[0].tolist()
        first = bisect_left(self._positions, support.start)
        return first < len(self._positions) and self._positions[first] < support.stop

    def _in_order(self) -> tuple[Tensor, Tensor]:
        if self._ordered is None:
            self._ordered = torch.sort(self.index)
        return self._ordered


def gather(stack: Stack, dim: int, index: Gather) -> Stack:
    """Return the given positions along a dimension, in any order, with or without repetition."""
    shape = (*stack.shape[:dim], len(index.index), *stack.shape[dim + 1 :])
    if stack.dim == dim and isinstance(stack.support, range):
        # Which elements of few can differ from zero takes longer to find than to compute them all.
        is_small = stack.count * torch.Size(shape).numel() < FEW_ELEMENTS
        if is_small and index.reaches(stack.support):
            stack = dense_stack(stack.dense())
    stack = stack.spread()
    if stack.dim == dim and stack.support is not None:
        taken, where = index.taken_from(stack.support)
        return Stack(_selected(stack.data, dim + 1, where), shape, dim, taken)
    return Stack(_selected(stack.data, dim + 1, index.index), shape, stack.dim, stack.support)


def _selected(data: Tensor, dim: int, positions: Tensor) -> Tensor:
    """Return positions along a dimension; torch takes a fifth of the time for the last of two."""
    if dim < data.dim() - 1:
        return data.index_select(dim, positions)
    lines = data.reshape(-1, data.shape[dim]).index_select(1, positions)
    return lines.view(*data.shape[:dim], len(positions))


def scatter(stack: Stack, dim: int, index: Tensor, size: int) -> Stack:
    """Return the sums at given positions along a dimension of a new length: a transposed gather."""
    stack = stack.spread()
    shape = (*stack.shape[:dim], size, *stack.shape[dim + 1 :])
    compact = list(stack.data.shape)
    compact[dim + 1] = size
    whole = stack.data.new_zeros(compact)
    if stack.dim == dim and stack.support is not None:
        index = take(index, 0, stack.support)
        return Stack(whole.index_add_(dim + 1, index, stack.data), shape)
    data = whole.index_add_(dim + 1, index, stack.data)
    return Stack(data, shape, stack.dim, stack.support)


def cut(stack: Stack, dim: int, start: int, stop: int) -> Stack:
    """Return a range of positions along a dimension."""
    shape = (*stack.shape[:dim], stop - start, *stack.shape[dim + 1 :])
    if stack.dim != dim or stack.support is None:
        data = stack.spread().data.narrow(dim + 1, start, stop - start)
        return Stack(data, shape, stack.dim, stack.support)
    support = stack.support
    if isinstance(support, range):
        first, last = max(start, support.start), min(stop, support.stop)
        last = max(first, last)
        offset = min(first - support.start, len(support))
        inside = range(
            min(first - start, stop - start), min(first - start, stop - start) + last - first
        )
        if stack.diagonal and len(inside) == len(support):
            return Stack(stack.data, shape, dim, inside, diagonal=True)
        if stack.diagonal:
            data = stack.written_out(offset, offset + last - first)
        else:
            data = stack.data.narrow(dim + 1, offset, last - first)
        is_whole = len(inside) == stop - start
        return Stack(data, shape) if is_whole else Stack(data, shape, dim, inside)
    stack = stack.spread()
    bounds = torch.tensor([start, stop], device=support.device)
    first, last = torch.searchsorted(support, bounds).tolist()
    data = stack.data.narrow(dim + 1, first, last - first)
    return Stack(data, shape, dim, support[first:last] - start)


def pad(stack: Stack, dim: int, start: int, size: int) -> Stack:
    """Return a stack padded with zeros along a dimension: the transposed cut."""
    shape = (*stack.shape[:dim], size, *stack.shape[dim + 1 :])
    if stack.dim == dim and stack.support is not None:
        support = stack.support
        if isinstance(support, range):
            return replace(
                stack, shape=shape, support=range(support.start + start, support.stop + start)
            )
        return replace(stack, shape=shape, support=support + start)
    if stack.dim is None:
        length = stack.shape[dim]
        return Stack(stack.data, shape, dim, range(start, start + length))
    stack = stack.spread()
    whole = list(stack.data.shape)
    whole[dim + 1] = size
    data = stack.data.new_zeros(whole)
    data.narrow(dim + 1, start, stack.shape[dim]).copy_(stack.data)
    return Stack(data, shape, stack.dim, stack.support)


def join(stacks: Sequence[Stack], dim: int) -> Stack:
    """Return stacks concatenated along a dimension."""
    first = stacks[0]
    length = sum(stack.shape[dim] for stack in stacks)
    shape = (*first.shape[:dim], length, *first.shape[dim + 1 :])
    is_shared = first.dim != dim and all(
        s.dim == first.dim and same_index(s.support, first.support) for s in stacks
    )
    if is_shared:
        data = torch.cat([stack.spread().data for stack in stacks], dim + 1)
        return Stack(data, shape, first.dim, first.support)
    return Stack(torch.cat([stack.dense() for stack in stacks], dim + 1), shape)


def join_in_order(stacks: Sequence[Stack], dim: int, dims: tuple[int, ...]) -> Stack:
    """Join stacks along a dimension, each permuted first unless `dims` is empty."""
    if not dims:
        return join(stacks, dim)
    return join([permute(stack, dims) for stack in stacks], dims.index(dim))


def transposed(stack: Stack) -> Stack:
    """Return a stack with its last two dimensions exchanged."""
    last = len(stack.shape) - 1
    return permute(stack, (*range(last - 1), last, last - 1))


def general(
    operator: Callable[..., tuple[Tensor, ...]], stacks: Sequence[Stack]
) -> tuple[Tensor, ...]:
    """Apply any other operator to dense vectors under vmap."""
    results = batched(operator, [stack.dense() for stack in stacks], stacks[0].count)
    # Many operators have no rule for a conjugate that is not computed yet.
    return tuple(each.resolve_conj() for each in results)
