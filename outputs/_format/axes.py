"""The axes of a matrix: rows and columns, their tensors, and shards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from outputs._errors import ResultError


class Axis(StrEnum):
    """The axis of a matrix along which blocks arrive; equal to its name as a string.

    Its members equal those of `autodiff_core.Axis`, which this package must not import.
    """

    ROWS = "rows"
    COLUMNS = "columns"

    @property
    def dimension(self) -> int:
        """The dimension of a matrix along which its lines are counted."""
        return 0 if self is Axis.ROWS else 1

    def lines(self, shape: tuple[int, int]) -> int:
        """Return how many lines (rows or columns) a matrix of this shape has."""
        return shape[self.dimension]

    def across(self, shape: tuple[int, int]) -> int:
        """Return how many entries a line of a matrix of this shape has."""
        return shape[1 - self.dimension]

    def shape(self, lines: int, across: int) -> tuple[int, int]:
        """Return the shape of a matrix of this many lines with this many entries each."""
        return (lines, across) if self is Axis.ROWS else (across, lines)

    def region(self, start: int, stop: int) -> tuple[slice, slice]:
        """Return the index of the lines start, ..., stop - 1 in a matrix."""
        lines = slice(start, stop)
        return (lines, slice(None)) if self is Axis.ROWS else (slice(None), lines)

    def bounded_region(self, shape: tuple[int, int], start: int, stop: int) -> tuple[slice, slice]:
        """Return the same index in a matrix of this shape, with bounds along both dimensions."""
        lines, across = slice(start, stop), slice(0, self.across(shape))
        return (lines, across) if self is Axis.ROWS else (across, lines)


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
        """Number of elements of the tensor."""
        return math.prod(self.shape)


def find_tensor(what: str, tensors: tuple[TensorSpec, ...], name: str) -> tuple[int, TensorSpec]:
    """Return the first line of a tensor on its axis, and the tensor.

    Args:
        what: What the axis counts, for the message: ``row`` or ``column``.
        tensors: The tensors of the axis.
        name: The name of the tensor.

    Raises:
        ResultError: If there is no such tensor.
    """
    start = 0
    for tensor in tensors:
        if tensor.name == name:
            return start, tensor
        start += tensor.size
    names = ", ".join(tensor.name for tensor in tensors)
    raise ResultError(f"There is no {what} tensor {name!r}; there are: {names}.")


@dataclass(frozen=True)
class Shard:
    """The part of a matrix that one file of several holds: adjacent lines of its block axis.

    Attributes:
        index: Index of the part, counted from 0.
        count: Number of parts into which the matrix was divided.
        start: First line, counted in the whole matrix.
        stop: One past the last line.

    Raises:
        ResultError: If the fields contradict each other.
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
