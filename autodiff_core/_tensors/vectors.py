"""Sets of vectors that a linearised function is applied to, made or sliced a range at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor

Vector = tuple[Tensor | None, ...]
"""One vector, or a stack of them, over several tensors; None stands for zeros."""


PROBES = 2
"""How many vectors a probe stacks: the fewest that make a batch."""


class Vectors(Protocol):
    """An ordered set of vectors, each over the same tuple of tensors."""

    def __len__(self) -> int:
        """How many vectors there are."""
        ...

    def stack(self, start: int, stop: int) -> Vector:
        """The vectors start, ..., stop - 1, stacked along a new leading dimension."""
        ...

    def probe(self) -> Vector:
        """A stack of `PROBES` random vectors of the same space, without zeros."""
        ...


class StandardBasis:
    """The standard basis of the space of a tuple of tensors, all elements one after the other.

    The basis exists only in ranges: `stack(start, stop)` makes its one-hot vectors on the fly,
    and a tensor that a range does not touch is None.
    """

    def __init__(
        self, tensors: Sequence[Tensor], *, points: int | None = None, factor: complex = 1
    ) -> None:
        """Describe the basis.

        Args:
            tensors: The tensors whose elements are counted; shapes, dtypes and devices matter.
            points: With a number, every tensor has a leading dimension over points, and a basis
                vector is one-hot at each point alike.
            factor: What stands in the place of the one; an imaginary factor is given to complex
                tensors alone, and real ones stay zero.
        """
        self._tensors = tuple(tensors)
        self._points = points
        self._factor = factor
        sizes = [tensor.numel() // (points or 1) for tensor in tensors]
        self._offsets = [0, *accumulate(sizes)]

    def __len__(self) -> int:
        """The dimension of the space."""
        return self._offsets[-1]

    def stack(self, start: int, stop: int) -> Vector:
        """The one-hot vectors of a range, shape (stop - start, *tensor.shape) a tensor."""
        return tuple(
            self._one_hot(tensor, first, last, start, stop)
            for tensor, first, last in zip(
                self._tensors, self._offsets, self._offsets[1:], strict=False
            )
        )

    def parts(self, start: int, stop: int) -> list[tuple[int, int, int]] | None:
        """A range, tensor by tensor: (index, first, last + 1) in elements of the tensor.

        None where the vectors are more than one-hot: at many points, or imaginary.
        """
        if self._points is not None or self._factor != 1:
            return None
        return [
            (index, max(first, start) - first, min(last, stop) - first)
            for index, (first, last) in enumerate(pairwise(self._offsets))
            if max(first, start) < min(last, stop)
        ]

    def probe(self) -> Vector:
        """Random vectors over all tensors that the basis has vectors of."""
        return tuple(
            _random_stack(tensor.shape, tensor) if self._covers(tensor) else None
            for tensor in self._tensors
        )

    def _covers(self, tensor: Tensor) -> bool:
        return tensor.is_complex() or not isinstance(self._factor, complex)

    def _one_hot(
        self, tensor: Tensor, first: int, last: int, start: int, stop: int
    ) -> Tensor | None:
        low, high = max(first, start), min(last, stop)
        if low >= high or not self._covers(tensor):
            return None
        stacked = tensor.new_zeros((stop - start, *tensor.shape))
        leading = (stop - start,) if self._points is None else (stop - start, self._points)
        flat = stacked.view(*leading, last - first)
        corner = flat[low - start : high - start, ..., low - first : high - first]
        corner.diagonal(dim1=0, dim2=-1).fill_(self._factor)
        return stacked


class StackedVectors:
    """Vectors that the user gave, stacked along the leading dimension of each tensor."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Take the tensors, each of shape (vectors, *shape)."""
        self._tensors = tuple(tensors)

    def __len__(self) -> int:
        """How many vectors there are."""
        return len(self._tensors[0]) if self._tensors else 0

    def stack(self, start: int, stop: int) -> Vector:
        """The vectors of a range; views of what was given."""
        return tuple(tensor[start:stop] for tensor in self._tensors)

    def probe(self) -> Vector:
        """Random vectors of the shapes of those that were given."""
        return tuple(_random_stack(tensor.shape[1:], tensor) for tensor in self._tensors)


def _random_stack(shape: Sequence[int], like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    dtype = torch.complex128 if like.is_complex() else torch.float64
    drawn = torch.randn((PROBES, *shape), generator=generator, dtype=dtype)
    return drawn.to(like.device, like.dtype)


def combination(weights: Tensor, stacks: Sequence[Tensor | None]) -> Vector:
    """The linear combination of stacked vectors.

    Args:
        weights: Real weights, shape (vectors,).
        stacks: A tensor of shape (vectors, *shape) each, or None.
    """
    return tuple(
        None
        if stack is None
        else torch.tensordot(weights.to(stack.device, stack.dtype), stack, dims=1)
        for stack in stacks
    )
