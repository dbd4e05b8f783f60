"""Stacks of tensors that are zero outside a known range along one dimension.

A stack of one-hot vectors is almost wholly zero, and stays so through many operators: a scaling
keeps the support, a gather or a shift moves it, a product along another dimension leaves it. The
operators here compute on the support alone. All are linear in the stack; the constants that they
take have the shapes of one vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autodiff_core._tensors.linear_combination import (
    Coefficient,
    is_without_overlap,
    linear_combination,
)
from autodiff_core._tensors.matrix_product import matrix_product

# Such a product takes about as long as writing its result: it is better put in place, each vector's
# by itself, than made together with others and copied.
FEW_TERMS = 32
MANY_RESULTS = 2**15
# Products in batches, of as few terms and with a vector, take half of the time when they are summed
# term by term, without a copy for a batched product (measured).
FEW_COMPONENTS = 4

Index = range | Tensor
"""Positions along a dimension, ascending and each once."""


@dataclass(frozen=True)
class Stack:
    """Vectors of one shape, stacked.

    Attributes:
        data: Shape (vectors, *shape), with the length of the support along `dim`. For a stack
            that is `one_hot` shape (vectors,): the entry of vector i at position i of the support.
        shape: The shape of one vector.
        dim: The dimension of one vector along which it is known to be zero outside the support;
            None where nothing is known.
        support: The positions that may differ from zero.
        one_hot: Whether vector i has its only entry at position i of the support.
    """

    data: Tensor
    shape: tuple[int, ...]
    dim: int | None = None
    support: Index | None = None
    one_hot: bool = False

    @property
    def count(self) -> int:
        """How many vectors there are."""
        return self.data.shape[0]

    def spread(self) -> Stack:
        """The same with the data of a one-hot stack written out."""
        if not self.one_hot:
            return self
        data = torch.diag(self.data).reshape(self.count, *self._compact_shape())
        return replace(self, data=data, one_hot=False)

    def dense(self) -> Tensor:
        """The vectors in full, shape (vectors, *shape)."""
        stack = self.spread()
        if stack.dim is None or stack.support is None:
            return stack.data
        whole = stack.data.new_empty((stack.count, *stack.shape))
        stack.put(whole)
        return whole

    def put(self, out: Tensor) -> None:
        """Write the vectors in full into memory of shape (vectors, *shape)."""
        stack = self.spread()
        if stack.dim is None or stack.support is None:
            if stack.data.data_ptr() != out.data_ptr():
                out.copy_(stack.data)
            return
        out.zero_()
        if isinstance(stack.support, range):
            out.narrow(stack.dim + 1, stack.support.start, len(stack.support)).copy_(stack.data)
        else:
            out.index_copy_(stack.dim + 1, stack.support, stack.data)

    def _compact_shape(self) -> tuple[int, ...]:
        assert self.dim is not None
        assert self.support is not None
        shape = list(self.shape)
        shape[self.dim] = len(self.support)
        return tuple(shape)


def one_hot(start: int, stop: int, like: Tensor) -> Stack:
    """The one-hot vectors start, ..., stop - 1 of the space of a tensor.

    Of the dimensions of the tensor the one is chosen of which the range touches the smallest part.
    """
    shape = tuple(like.shape)
    count = stop - start
    if like.dim() == 0:
        return Stack(like.new_ones(count), shape)
    if like.numel() == max(shape):
        dim = shape.index(max(shape))
        return Stack(like.new_ones(count), shape, dim, range(start, stop), one_hot=True)
    flat = torch.arange(start, stop, device=like.device)
    strides = [torch.Size(shape[dim + 1 :]).numel() for dim in range(len(shape))]
    touched = [
        _touched(start, stop, stride, size) for stride, size in zip(strides, shape, strict=True)
    ]
    dim = min(range(len(shape)), key=lambda dim: len(touched[dim]) / shape[dim])
    support = touched[dim]
    compact = [len(support) if d == dim else size for d, size in enumerate(shape)]
    data = like.new_zeros((count, *compact))
    where = [
        flat // stride % size - (support.start if d == dim else 0)
        for d, (stride, size) in enumerate(zip(strides, shape, strict=True))
    ]
    data[(torch.arange(count, device=like.device), *where)] = 1
    return _simplest(Stack(data, shape, dim, support))


def _touched(start: int, stop: int, stride: int, size: int) -> range:
    first, last = start // stride, (stop - 1) // stride
    if last - first + 1 >= size or last % size < first % size:
        return range(size)
    return range(first % size, last % size + 1)


def _simplest(stack: Stack) -> Stack:
    if stack.dim is not None and stack.support == range(stack.shape[stack.dim]):
        return replace(stack.spread(), dim=None, support=None)
    return stack


def take(constant: Tensor, dim: int, index: Index) -> Tensor:
    """The given positions of a constant along a dimension; a view where they follow in a row."""
    if isinstance(index, range):
        return constant.narrow(dim, index.start, len(index))
    return constant.index_select(dim, index)


def _as_tensor(index: Index, device: torch.device) -> Tensor:
    if isinstance(index, range):
        return torch.arange(index.start, index.stop, device=device)
    return index


def _same(first: Index | None, second: Index | None) -> bool:
    if first is second:
        return True
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return type(first) is type(second) and not isinstance(first, Tensor) and first == second


def combine(
    stacks: Sequence[Stack],
    coefficients: Sequence[Coefficient],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    spare: Sequence[bool] = (),
) -> Stack:
    """The sum of stacks, each multiplied elementwise by a constant, with broadcasting.

    Args:
        stacks: The stacks.
        coefficients: A tensor that broadcasts to `shape`, a number, or None for one.
        shape: The shape of one vector of the sum.
        dtype: The dtype of the sum.
        spare: Whose data nobody needs any more, so that the sum may take their memory.
    """
    only = stacks[0]
    if len(stacks) == 1 and only.one_hot and only.shape == shape:
        return _scaled_one_hot(only, coefficients[0], dtype)
    dim, support = None, None
    if any(stack.dim is not None or stack.shape != shape for stack in stacks):
        stacks = [_aligned(stack, shape) for stack in stacks]
        shared = _on_one_support(stacks, shape)
        if shared is None:
            return _combined_in_full(stacks, coefficients, shape, dtype, spare)
        stacks, dim, support = shared, shared[0].dim, shared[0].support
    compact = shape
    if dim is not None and support is not None:
        compact = (*shape[:dim], len(support), *shape[dim + 1 :])
        coefficients = [_on_the_support(each, dim, support, shape) for each in coefficients]
    total = linear_combination([stack.data for stack in stacks], coefficients, spare)
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
    """A sum of stacks that share no support: those that have one are added where they have it."""
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
        is_ours = len(data) > 1 or coefficients[in_full[0]] is not None or may_overwrite[0]
        is_whole = total.shape == (count, *shape) and total.dtype == dtype
        if not (is_ours and is_whole and is_without_overlap(total)):
            total = total.expand(count, *shape).to(dtype, copy=True).contiguous()
    else:
        total = like.new_zeros((count, *shape), dtype=dtype)
    for place, (stack, coefficient) in enumerate(zip(stacks, coefficients, strict=True)):
        if place in in_full:
            continue
        dim, support = stack.dim, stack.support
        assert dim is not None
        assert support is not None
        coefficient = _on_the_support(coefficient, dim, support, shape)
        part = stack.data if coefficient is None else stack.data * coefficient
        if isinstance(support, range):
            total.narrow(dim + 1, support.start, len(support)).add_(part)
        else:
            part = part.expand(*total.shape[: dim + 1], -1, *total.shape[dim + 2 :])
            total.index_add_(dim + 1, support, part.to(dtype))
    return Stack(total, shape)


def _on_the_support(
    coefficient: Coefficient, dim: int, support: Index, shape: tuple[int, ...]
) -> Coefficient:
    if isinstance(coefficient, Tensor):
        own = dim - len(shape) + coefficient.dim()
        if own >= 0 and coefficient.shape[own] != 1:
            return take(coefficient, own, support)
    return coefficient


def _scaled_one_hot(stack: Stack, coefficient: Coefficient, dtype: torch.dtype) -> Stack:
    if isinstance(coefficient, Tensor) and coefficient.numel() > 1:
        assert stack.support is not None
        coefficient = take(coefficient.reshape(-1), 0, stack.support)
    elif isinstance(coefficient, Tensor):
        coefficient = coefficient.reshape(())
    data = stack.data if coefficient is None else stack.data * coefficient
    return replace(stack, data=data.to(dtype))


def _aligned(stack: Stack, shape: tuple[int, ...]) -> Stack:
    """With as many dimensions as `shape`, ready to broadcast."""
    stack = stack.spread()
    missing = len(shape) - len(stack.shape)
    data = stack.data
    if missing:
        data = data.reshape(stack.count, *(1,) * missing, *data.shape[1:])
    dim = None if stack.dim is None else stack.dim + missing
    return Stack(data, (*(1,) * missing, *stack.shape), dim, stack.support)


def _on_one_support(stacks: Sequence[Stack], shape: tuple[int, ...]) -> list[Stack] | None:
    """The same stacks on a support that they share, or in full; None where they share none."""
    first = stacks[0]
    dim = first.dim
    if dim is not None and all(s.dim == dim and s.shape[dim] == shape[dim] for s in stacks):
        if all(_same(s.support, first.support) for s in stacks[1:]):
            return list(stacks)
        device = first.data.device
        parts = [_as_tensor(s.support, device) for s in stacks if s.support is not None]
        union = torch.unique(torch.cat(parts))
        if len(union) < shape[dim]:
            return [_on_support(s, union, part) for s, part in zip(stacks, parts, strict=True)]
    return list(stacks) if all(stack.dim is None for stack in stacks) else None


def _on_support(stack: Stack, support: Tensor, own: Tensor) -> Stack:
    assert stack.dim is not None
    if len(own) == len(support):
        return replace(stack, support=support)
    compact = list(stack.data.shape)
    compact[stack.dim + 1] = len(support)
    where = torch.searchsorted(support, own)
    data = stack.data.new_zeros(compact).index_copy_(stack.dim + 1, where, stack.data)
    return replace(stack, data=data, support=support)


def reshape(stack: Stack, shape: tuple[int, ...]) -> Stack:
    """Of another shape with as many elements."""
    if stack.dim is None:
        return Stack(stack.data.reshape(stack.count, *shape), shape)
    before = torch.Size(stack.shape[: stack.dim]).numel()
    size = stack.shape[stack.dim]
    for dim, length in enumerate(shape):
        if length == size and torch.Size(shape[:dim]).numel() == before:
            moved = replace(stack, shape=shape, dim=dim)
            if stack.one_hot:
                return moved
            return replace(moved, data=stack.data.reshape(stack.count, *moved._compact_shape()))
    return Stack(stack.dense().reshape(stack.count, *shape), shape)


def permute(stack: Stack, dims: tuple[int, ...]) -> Stack:
    """With its dimensions in another order."""
    shape = tuple(stack.shape[dim] for dim in dims)
    dim = None if stack.dim is None else dims.index(stack.dim)
    if stack.one_hot:
        return replace(stack, shape=shape, dim=dim)
    data = stack.data.permute(0, *(dim + 1 for dim in dims))
    return Stack(data, shape, dim, stack.support)


def expand(stack: Stack, shape: tuple[int, ...]) -> Stack:
    """Repeated along dimensions of length 1 and new leading ones."""
    stack = _aligned(stack, shape)
    compact = list(shape)
    if stack.dim is not None and stack.support is not None:
        compact[stack.dim] = len(stack.support)
    return Stack(stack.data.expand(-1, *compact), shape, stack.dim, stack.support)


def total(stack: Stack, dims: tuple[int, ...], keepdim: bool) -> Stack:
    """Summed over dimensions."""
    stack = stack.spread()
    data = stack.data.sum([dim + 1 for dim in dims], keepdim=keepdim) if dims else stack.data
    shape = tuple(
        1 if dim in dims else size
        for dim, size in enumerate(stack.shape)
        if keepdim or dim not in dims
    )
    if stack.dim is None or stack.dim in dims:
        return Stack(data, shape)
    dim = stack.dim if keepdim else stack.dim - sum(other < stack.dim for other in dims)
    return Stack(data, shape, dim, stack.support)


@dataclass
class Gather:
    """Positions along a dimension that are taken, with the way back.

    Attributes:
        index: The positions, shape (taken,).
    """

    index: Tensor
    _order: Tensor | None = None
    _sorted: Tensor | None = None

    def taken_from(self, support: Index) -> tuple[Tensor, Tensor]:
        """Which of the taken lie in a support, ascending, and where in the support they lie."""
        if self._order is None or self._sorted is None:
            self._sorted, self._order = torch.sort(self.index)
        positions = _as_tensor(support, self.index.device)
        low = torch.searchsorted(self._sorted, positions)
        high = torch.searchsorted(self._sorted, positions, right=True)
        lengths = high - low
        within = torch.repeat_interleave(lengths)
        ends = lengths.cumsum(0)
        offsets = torch.arange(len(within), device=within.device) - (ends - lengths)[within]
        taken, order = torch.sort(self._order[low[within] + offsets])
        return taken, within[order]


def gather(stack: Stack, dim: int, index: Gather) -> Stack:
    """The given positions along a dimension, in any order and number."""
    stack = stack.spread()
    shape = (*stack.shape[:dim], len(index.index), *stack.shape[dim + 1 :])
    if stack.dim == dim and stack.support is not None:
        taken, where = index.taken_from(stack.support)
        data = stack.data.index_select(dim + 1, where)
        return Stack(data, shape, dim, taken)
    return Stack(stack.data.index_select(dim + 1, index.index), shape, stack.dim, stack.support)


def scatter(stack: Stack, dim: int, index: Tensor, size: int) -> Stack:
    """Added up at the given positions along a dimension of a new length: the transposed gather."""
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
    """A range of positions along a dimension."""
    shape = (*stack.shape[:dim], stop - start, *stack.shape[dim + 1 :])
    if stack.dim != dim or stack.support is None:
        data = stack.spread().data.narrow(dim + 1, start, stop - start)
        return Stack(data, shape, stack.dim, stack.support)
    stack = stack.spread()
    support = stack.support
    if isinstance(support, range):
        first, last = max(start, support.start), min(stop, support.stop)
        last = max(first, last)
        offset = min(first - support.start, len(support))
        data = stack.data.narrow(dim + 1, offset, last - first)
        inside = range(
            min(first - start, stop - start), min(first - start, stop - start) + last - first
        )
        return Stack(data, shape, dim, inside)
    assert support is not None
    bounds = torch.tensor([start, stop], device=support.device)
    first, last = torch.searchsorted(support, bounds).tolist()
    data = stack.data.narrow(dim + 1, first, last - first)
    return Stack(data, shape, dim, support[first:last] - start)


def pad(stack: Stack, dim: int, start: int, size: int) -> Stack:
    """Placed within zeros along a dimension: the transposed cut."""
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
    """Concatenated along a dimension."""
    first = stacks[0]
    length = sum(stack.shape[dim] for stack in stacks)
    shape = (*first.shape[:dim], length, *first.shape[dim + 1 :])
    is_shared = first.dim != dim and all(
        s.dim == first.dim and _same(s.support, first.support) for s in stacks
    )
    if is_shared:
        data = torch.cat([stack.spread().data for stack in stacks], dim + 1)
        return Stack(data, shape, first.dim, first.support)
    return Stack(torch.cat([stack.dense() for stack in stacks], dim + 1), shape)


def times(stack: Stack, matrix: Tensor, shape: tuple[int, ...], out: Tensor | None = None) -> Stack:
    """The matrix products stack @ matrix.

    Args:
        stack: Each vector of shape (*batch, r, c).
        matrix: Shape (*batch, c, m) or (c, m).
        shape: The shape of one product, (*batch, r, m).
        out: Memory of shape (vectors, *shape) that the products may be put into.
    """
    if stack.dim is None and matrix.dim() == 2:
        return Stack(_product(stack.data, matrix, out).reshape(stack.count, *shape), shape)
    last = len(stack.shape) - 1
    if stack.dim == last and stack.support is not None:
        matrix = take(matrix, -2, stack.support)
        if stack.one_hot and matrix.dim() == 2:
            # The product with one-hot vectors is a selection of rows.
            lines = matrix * stack.data[:, None]
            return Stack(lines.reshape(stack.count, *shape), shape)
        return Stack(_product(stack.spread().data, matrix, out), shape)
    stack = stack.spread()
    batch = matrix.dim() - 2
    if stack.dim is not None and stack.support is not None and stack.dim < batch:
        matrix = take(matrix, stack.dim, stack.support)
    return Stack(_product(stack.data, matrix), shape, stack.dim, stack.support)


def times_from_left(
    matrix: Tensor, stack: Stack, shape: tuple[int, ...], out: Tensor | None
) -> Stack:
    """The matrix products matrix @ stack; the arguments are those of `times`."""
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
        return torch.matmul(matrix, data)
    # The vectors' columns stand side by side: it is one product.
    product = matrix_product(matrix, columns.flatten(1))
    return product.view(-1, *columns.shape[1:]).transpose(0, 1)


def _is_bound_by_writing(terms: int, results: int) -> bool:
    return terms <= FEW_TERMS and results >= MANY_RESULTS


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
    if 0 < c <= FEW_COMPONENTS and 1 in (r, matrix.shape[-1]):
        return _sum_of_multiples(data, matrix)
    moved = data.movedim(0, -3).reshape(-1, data.shape[0] * r, c)
    product = torch.bmm(moved, matrix.reshape(-1, *matrix.shape[-2:]))
    return product.reshape(*batch, data.shape[0], r, matrix.shape[-1]).movedim(-3, 0)


def _sum_of_multiples(data: Tensor, matrix: Tensor) -> Tensor:
    """Many products of a few components each, summed component by component."""
    total = data[..., :1] * matrix[..., :1, :]
    for component in range(1, data.shape[-1]):
        part = slice(component, component + 1)
        total = torch.addcmul(total, data[..., part], matrix[..., part, :])
    return total


def solved(stack: Stack, solve: Callable[[Tensor], Tensor], left: bool) -> Stack:
    """The solutions of linear systems with one matrix, all by a single call.

    Args:
        stack: The right-hand sides, each of shape (n, m).
        solve: Solves for a matrix of right-hand sides.
        left: Whether the matrix of the system stands on the left, so that the systems' columns
            are independent; else their rows.
    """
    kept = 1 if left else 0
    if stack.dim != kept:
        stack = Stack(stack.dense(), stack.shape)
    data = stack.spread().data
    count, n, m = data.shape
    turned = data.transpose(0, 1)
    if left:
        columns = solve(turned.reshape(n, count * m))
        result = columns.reshape(n, count, m).transpose(0, 1)
    elif turned.is_contiguous():
        result = solve(turned.reshape(n * count, m)).reshape(n, count, m).transpose(0, 1)
    else:
        result = solve(data.reshape(count * n, m)).reshape(count, n, m)
    return Stack(result, stack.shape, stack.dim, stack.support)


def transposed(stack: Stack) -> Stack:
    """With its last two dimensions exchanged."""
    last = len(stack.shape) - 1
    return permute(stack, (*range(last - 1), last, last - 1))


def general(
    operator: Callable[..., tuple[Tensor, ...]], stacks: Sequence[Stack]
) -> tuple[Tensor, ...]:
    """Any other operator, on the vectors in full under vmap."""
    return torch.func.vmap(operator)(*(stack.dense() for stack in stacks))
