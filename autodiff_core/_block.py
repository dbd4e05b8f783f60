"""The values that a stream of derivatives consists of: axes, layouts and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from autodiff_core._errors import Fallback
from autodiff_core._tensors.contiguous import joined


class Axis(StrEnum):
    """The axis of a matrix along which blocks are computed; equal to its name as a string."""

    ROWS = "rows"
    COLUMNS = "columns"

    def lines(self, shape: tuple[int, int]) -> int:
        """Return how many lines (rows or columns) a matrix of this shape has."""
        return shape[0 if self is Axis.ROWS else 1]

    def across(self, shape: tuple[int, int]) -> int:
        """Return how many entries a line of a matrix of this shape has."""
        return shape[1 if self is Axis.ROWS else 0]

    def region(self, start: int, stop: int) -> tuple[slice, slice]:
        """Return the index of the lines start, ..., stop - 1 in a matrix."""
        lines = slice(start, stop)
        return (lines, slice(None)) if self is Axis.ROWS else (slice(None), lines)


@dataclass(frozen=True)
class AxisLayout:
    """The tensors whose elements, concatenated, form one axis of a matrix.

    Attributes:
        shapes: The shape of each tensor; with many points, its shape at one point.
        dtypes: The dtype of each tensor.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]

    @classmethod
    def of(cls, tensors: Sequence[Tensor], *, points: int | None = None) -> AxisLayout:
        """Return the layout of tensors; with `points`, without their leading dimension."""
        skipped = 0 if points is None else 1
        return cls(
            tuple(tuple(tensor.shape[skipped:]) for tensor in tensors),
            tuple(tensor.dtype for tensor in tensors),
        )

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of elements of each tensor."""
        return tuple(torch.Size(shape).numel() for shape in self.shapes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The position at which each tensor begins, followed by the length of the axis."""
        return (0, *accumulate(self.sizes))

    @property
    def size(self) -> int:
        """The length of the axis."""
        return self.offsets[-1]

    def overlaps(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Return the tensors that a range covers, as (index, first, last + 1) in their elements."""
        return [
            (index, max(start, first) - first, min(stop, last) - first)
            for index, (first, last) in enumerate(zip(self.offsets, self.offsets[1:], strict=False))
            if max(start, first) < min(stop, last)
        ]


@dataclass(frozen=True)
class Block:
    """The entries of the derivative in one range of rows or columns.

    Attributes:
        axis: Whether the range counts rows or columns of the matrix.
        start: The first row or column.
        stop: One past the last row or column.
        pieces: The entries, one tensor for each tensor along the other axis, of shape
            (stop - start, elements), or (stop - start, points, elements) with many points. They
            are separate because the tensors may differ in dtype and device.
        dtype: The dtype of the matrix.
        fallbacks: The fallbacks that were taken for the first time in this block.
    """

    axis: Axis
    start: int
    stop: int
    pieces: tuple[Tensor, ...]
    dtype: torch.dtype
    fallbacks: tuple[Fallback, ...] = ()

    @cached_property
    def values(self) -> Tensor:
        """The block as one tensor in the orientation of the matrix.

        Shape (stop - start, columns) for rows, (rows, stop - start) for columns, with a leading
        dimension over points where there are many. A single piece, and pieces that are adjacent
        in memory, are not copied.
        """
        device = self.pieces[0].device
        pieces = [piece.to(device, self.dtype) for piece in self.pieces]
        lines = joined(pieces)
        if lines.dim() == 3:
            lines = lines.transpose(0, 1)
        return lines if self.axis is Axis.ROWS else lines.transpose(-1, -2)
