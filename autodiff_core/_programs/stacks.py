"""Stacks of vectors: dense, with a known support, or diagonal."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Index = range | Tensor
"""Positions along a dimension, ascending and without repetition."""


@dataclass(slots=True)
class Stack:
    """Vectors of one shape, stacked.

    As a step, it is not modified.

    Attributes:
        data: Shape (vectors, *shape), with the length of the support along `dim`; 1 in its place
            if the stack is `diagonal`.
        shape: The shape of one vector.
        dim: The dimension of one vector along which it is known to be zero outside the support;
            None if no zeros are known.
        support: The positions along `dim` that may differ from zero.
        diagonal: Whether vector i is zero except at position i of the support, as one-hot vectors
            are.
    """

    data: Tensor
    shape: tuple[int, ...]
    dim: int | None = None
    support: Index | None = None
    diagonal: bool = False

    @property
    def count(self) -> int:
        """How many vectors there are."""
        return self.data.shape[0]

    def spread(self) -> Stack:
        """Return the same vectors, with the data of a diagonal stack written out."""
        if not self.diagonal:
            return self
        return Stack(self.written_out(0, self.count), self.shape, self.dim, self.support)

    def written_out(self, first: int, last: int) -> Tensor:
        """Return the data of a diagonal stack at positions first, ..., last - 1 of its support."""
        assert self.dim is not None
        shape = list(self.data.shape)
        shape[self.dim + 1] = last - first
        data = self.data.new_zeros(shape)
        self._write_diagonal(data, -first, first, last)
        return data

    def _write_diagonal(self, out: Tensor, offset: int, first: int, last: int) -> None:
        """Write the data of the vectors first, ..., last - 1 of a diagonal stack to a diagonal."""
        assert self.dim is not None
        given = self.data if last - first == self.count else self.data[first:last]
        out.diagonal(offset, 0, self.dim + 1).copy_(given.squeeze(self.dim + 1).movedim(0, -1))

    def dense(self) -> Tensor:
        """Return the dense vectors, shape (vectors, *shape)."""
        if self.dim is None or self.support is None:
            return self.data
        if self.diagonal and isinstance(self.support, range):
            whole = self.data.new_zeros((self.count, *self.shape))
            self._write_diagonal(whole, self.support.start, 0, self.count)
            return whole
        whole = self.data.new_empty((self.count, *self.shape))
        self.put(whole)
        return whole

    def put(self, out: Tensor) -> None:
        """Write the dense vectors to memory of shape (vectors, *shape)."""
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

    def compact_shape(self) -> tuple[int, ...]:
        """Return the shape of the data of one vector."""
        assert self.dim is not None
        assert self.support is not None
        shape = list(self.shape)
        shape[self.dim] = 1 if self.diagonal else len(self.support)
        return tuple(shape)


def one_hot(start: int, stop: int, like: Tensor) -> Stack:
    """Return the one-hot vectors start, ..., stop - 1 of the space of a tensor.

    The support is along the dimension of which the range covers the smallest part.
    """
    shape = tuple(like.shape)
    count = stop - start
    if like.dim() == 0:
        return Stack(like.new_ones(count), shape)
    if like.numel() == max(shape):
        dim = shape.index(max(shape))
        ones = like.new_ones((count, *(1,) * len(shape)))
        return Stack(ones, shape, dim, range(start, stop), diagonal=True)
    strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
    touched = [
        _touched(start, stop, stride, size) for stride, size in zip(strides, shape, strict=True)
    ]
    dim = min(range(len(shape)), key=lambda dim: len(touched[dim]) / shape[dim])
    support, stride, size = touched[dim], strides[dim], shape[dim]
    data = like.new_zeros((count, *shape[:dim], len(support), *shape[dim + 1 :]))
    # The range goes through one cycle of a dimension that it does not cover, or is not cut.
    left_out = start // (stride * size) * (size - len(support)) + support.start
    data.view(count, -1).diagonal(start - left_out * stride).fill_(1)
    return simplest(Stack(data, shape, dim, support))


def _touched(start: int, stop: int, stride: int, size: int) -> range:
    first, last = start // stride, (stop - 1) // stride
    if last - first + 1 >= size or last % size < first % size:
        return range(size)
    return range(first % size, last % size + 1)


def simplest(stack: Stack) -> Stack:
    """Return the same vectors without a support that leaves nothing out."""
    if stack.dim is not None and stack.support == range(stack.shape[stack.dim]):
        return replace(stack.spread(), dim=None, support=None)
    return stack


def dense_stack(data: Tensor) -> Stack:
    """Return stacked vectors as a stack of which no zeros are known.

    Args:
        data: Shape (vectors, *shape).
    """
    return Stack(data, tuple(data.shape[1:]))


def take(constant: Tensor, dim: int, index: Index) -> Tensor:
    """Return given positions of a constant along a dimension; a view if they are consecutive."""
    if isinstance(index, range):
        return constant.narrow(dim, index.start, len(index))
    return constant.index_select(dim, index)


def take_each(constant: Tensor, dim: int, index: Index) -> Tensor:
    """Return one given position of a constant along a dimension for each vector of a stack.

    Returns:
        Shape (vectors, *constant.shape), with length 1 along `dim`.
    """
    return take(constant, dim, index).movedim(dim, 0).unsqueeze(dim + 1)


def as_tensor(index: Index, device: torch.device) -> Tensor:
    """Return positions as an int64 tensor."""
    if isinstance(index, range):
        return torch.arange(index.start, index.stop, device=device)
    return index


def same_index(first: Index | None, second: Index | None) -> bool:
    """Return whether two supports are equal; a range never equals a tensor."""
    if first is second:
        return True
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return type(first) is type(second) and not isinstance(first, Tensor) and first == second


def aligned(stack: Stack, shape: tuple[int, ...]) -> Stack:
    """Return a stack with as many dimensions as `shape`, ready to broadcast."""
    missing = len(shape) - len(stack.shape)
    data = stack.data
    if missing:
        data = data.reshape(stack.count, *(1,) * missing, *data.shape[1:])
    dim = None if stack.dim is None else stack.dim + missing
    return replace(stack, data=data, shape=(*(1,) * missing, *stack.shape), dim=dim)
