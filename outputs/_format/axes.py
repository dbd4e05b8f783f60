"""The axes of a matrix: rows and columns, their tensors, and shards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from outputs._errors import ResultError


class Axis(StrEnum):
    """The axis of a matrix along which blocks arrive; equal to its name as a string.

    The same as `autodiff_core.Axis`, which this package must not import.
    """

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
class TensorSpec:
    """One tensor of the tuple whose flattened elements make up an axis.

    Attributes:
        name: The tensor's name, for example a parameter name; unique on its axis.
        shape: Natural shape; ``()`` for a scalar.
        dtype: The tensor's own dtype in numpy's or torch's spelling, for example ``"bfloat16"``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """The part of a matrix that one file of several holds: neighbouring lines of its block axis.

    Attributes:
        index: Which of the parts, from 0.
        count: How many parts the matrix was divided into.
        start: First line, counted in the whole matrix.
        stop: Line after its last.

    Raises:
        ResultError: If it contradicts itself.
    """

    index: int
    count: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ResultError(f"There is no shard {self.index} of {self.count}.")
        if not 0 <= self.start < self.stop:
            raise ResultError(f"A shard holds a range of lines, not {self.start}:{self.stop}.")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
