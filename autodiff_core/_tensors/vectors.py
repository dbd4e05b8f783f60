"""Sets of vectors to which a linearized function is applied, made or sliced range by range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor

Vector = tuple[Tensor | None, ...]
"""One vector, or a stack of them, over several tensors; None stands for zeros."""


PROBES = 2
"""The number of vectors in a probe: the smallest batch."""


class Vectors(Protocol):
    """An ordered set of vectors, each over the same tuple of tensors."""

    def __len__(self) -> int:
        """Return the number of vectors."""
        ...

    def stack(self, start: int, stop: int) -> Vector:
        """Return the vectors start, ..., stop - 1, stacked along a new leading dimension."""
        ...

    def probe(self) -> Vector:
        """Return a stack of `PROBES` dense random vectors of the same space."""
        ...


class StandardBasis:
    """The standard basis of the space of a tuple of tensors, whose elements are concatenated.

    The basis is never stored: `stack(start, stop)` makes one-hot vectors on the fly, and a tensor
    without an element in the range is None.
    """

    def __init__(
        self, tensors: Sequence[Tensor], *, points: int | None = None, factor: complex = 1
    ) -> None:
        """Describe the basis.

        Args:
            tensors: Tensors of the shapes, dtypes and devices of the space.
            points: The number of points, if every tensor has a leading dimension over points; a
                basis vector is then one-hot at the same element of each point.
            factor: The value of the nonzero entry; with an imaginary factor only complex tensors
                have basis vectors.
        """
        self._tensors = tuple(tensors)
        self._points = points
        self._factor = factor
        sizes = [tensor.numel() // (points or 1) for tensor in tensors]
        self._offsets = [0, *accumulate(sizes)]

    def __len__(self) -> int:
        """Return the dimension of the space."""
        return self._offsets[-1]

    def stack(self, start: int, stop: int) -> Vector:
        """Return the one-hot vectors of a range, for each tensor (stop - start, *tensor.shape)."""
        return tuple(
            self._one_hot(tensor, first, last, start, stop)
            for tensor, first, last in zip(
                self._tensors, self._offsets, self._offsets[1:], strict=False
            )
        )

    def parts(self, start: int, stop: int) -> list[tuple[int, int, int]] | None:
        """Return a range, tensor by tensor, as (index, first, last + 1) in elements of the tensor.

        It is None if the vectors are not plain one-hot vectors: at many points, or imaginary.
        """
        if self._points is not None or self._factor != 1:
            return None
        return [
            (index, max(first, start) - first, min(last, stop) - first)
            for index, (first, last) in enumerate(pairwise(self._offsets))
            if max(first, start) < min(last, stop)
        ]

    def probe(self) -> Vector:
        """Return random vectors over all tensors that have basis vectors."""
        return tuple(
            _random_stack(tensor.shape, tensor) if self._covers(tensor) else None
            for tensor in self._tensors
        )

    def _covers(self, tensor: Tensor) -> bool:
        return tensor.is_complex() or not isinstance(self._factor, complex)

    def _one_hot(
        self, tensor: Tensor, first: int, last: int, start: int, stop: int
    ) -> Tensor | None:
        if max(first, start) >= min(last, stop) or not self._covers(tensor):
            return None
        stacked = tensor.new_zeros((stop - start, *tensor.shape))
        by_point = stacked.view(stop - start, self._points or 1, last - first)
        by_point.diagonal(start - first, 0, 2).fill_(self._factor)
        return stacked


class StackedVectors:
    """The user's vectors, stacked along the leading dimension of each tensor."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Store the tensors, each of shape (vectors, *shape)."""
        self._tensors = tuple(tensors)

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self._tensors[0]) if self._tensors else 0

    def stack(self, start: int, stop: int) -> Vector:
        """Return the vectors of a range, as views."""
        return tuple(tensor[start:stop] for tensor in self._tensors)

    def probe(self) -> Vector:
        """Return random vectors of the same shapes."""
        return tuple(_random_stack(tensor.shape[1:], tensor) for tensor in self._tensors)


class LazyVectors:
    """Vectors that a function makes when they are needed, range by range."""

    def __init__(self, count: int, make: Callable[[int, int], Sequence[Tensor]]) -> None:
        """Keep the function.

        Args:
            count: The number of vectors.
            make: Returns the vectors start, ..., stop - 1: for each tensor that they multiply one
                of shape (stop - start, *shape), always the same numbers.
        """
        self._count = count
        self._make = make

    def __len__(self) -> int:
        """Return the number of vectors."""
        return self._count

    def stack(self, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return the vectors of a range."""
        return tuple(tensor.detach() for tensor in self._make(start, stop))

    def probe(self) -> Vector:
        """Return random vectors of the same shapes."""
        return tuple(_random_stack(tensor.shape[1:], tensor) for tensor in self.stack(0, 1))


def _random_stack(shape: Sequence[int], like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    dtype = torch.complex128 if like.is_complex() else torch.float64
    drawn = torch.randn((PROBES, *shape), generator=generator, dtype=dtype)
    return drawn.to(like.device, like.dtype)


def combination(weights: Tensor, stacks: Sequence[Tensor | None]) -> Vector:
    """Return the linear combination of stacked vectors.

    Args:
        weights: Real weights, shape (vectors,).
        stacks: Tensors of shape (vectors, *shape); None stands for zeros.
    """
    return tuple(
        None
        if stack is None
        else torch.tensordot(weights.to(stack.device, stack.dtype), stack, dims=1)
        for stack in stacks
    )
