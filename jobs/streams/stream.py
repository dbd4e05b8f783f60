"""The contract of a stream of blocks."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from autodiff_core import Axis, AxisLayout, Block


class Recorder(Protocol):
    """Lets an engine record the derivative; until then the plain engine computes."""

    def record(self, records: bool) -> None:
        """Let the engine record and compute from the next block on, or no longer."""
        ...


class Stream(Protocol):
    """The derivative of a job's function as blocks of lines, which are rows or columns."""

    @property
    def axis(self) -> Axis:
        """The axis along which the blocks follow one another."""
        ...

    @property
    def rows(self) -> AxisLayout:
        """The tensors along the rows; of many points, along the rows of one point."""
        ...

    @property
    def columns(self) -> AxisLayout:
        """The tensors along the columns."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrix."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the whole matrix, of all points where there are many."""
        ...

    @property
    def value(self) -> Any:
        """The function's value, nested as it is returned; of many points, stacked."""
        ...

    @property
    def passes(self) -> int:
        """How many passes through the function one point takes."""
        ...

    @property
    def unit(self) -> int:
        """How many lines belong together: the rows of one of many points, else 1."""
        ...

    @property
    def is_divisible(self) -> bool:
        """Whether a part of a unit can be computed by itself."""
        ...

    @property
    def engine(self) -> str:
        """The engine that computes the blocks; final after the first one."""
        ...

    @property
    def recorder(self) -> Recorder | None:
        """What lets the engine record; None where no engine could."""
        ...

    @property
    def nodes(self) -> int:
        """The number of operators in the graph of the derivative; 0 where that is not known."""
        ...

    @property
    def engine_refusal(self) -> str | None:
        """Why the plain engine replaced another, in one line; None if it did not."""
        ...

    def block(self, start: int, stop: int) -> Block:
        """Compute the lines start, ..., stop - 1."""
        ...

    def rows_by_symmetry(self) -> Stream | None:
        """Return the columns of a symmetric matrix as rows; None where the stream cannot."""
        ...


class PlainStream:
    """What a `Stream` has whose blocks the plain engine computes, because it opens many others."""

    engine = "plain"
    engine_refusal = None
    recorder = None
    nodes = 0


@dataclass(frozen=True)
class StreamFacts:
    """What a process that does not compute the blocks of a stream needs to know of it.

    Attributes:
        axis: The axis along which the blocks follow one another.
        shape: (rows, columns).
        dtype: The dtype of the entries.
        unit: How many lines belong to one of many points; 1 at a single point.
        is_divisible: Whether a part of a point can be computed by itself.
        bounds: Where the rows of each of many points of different sizes begin, and where the last
            ones end; None for points of one size.
        is_joint: Whether rows of several of these points can be computed together.
    """

    axis: Axis
    shape: tuple[int, int]
    dtype: torch.dtype
    unit: int
    is_divisible: bool
    bounds: tuple[int, ...] | None = None
    is_joint: bool = False

    @classmethod
    def of(cls, stream: Stream) -> StreamFacts:
        """Return those of a stream."""
        return cls(
            stream.axis,
            stream.shape,
            stream.dtype,
            stream.unit,
            stream.is_divisible,
            bounds_of(stream),
            is_joint(stream),
        )

    @property
    def across(self) -> int:
        """The number of entries of a line."""
        return self.axis.across(self.shape)

    @property
    def smallest(self) -> int:
        """The smallest number of lines that can be computed by themselves."""
        return 1 if self.is_divisible else self.unit


def block_end(stream: Stream | StreamFacts, start: int, size: int) -> int:
    """Return where a block that begins at a line ends: within one point, or after whole ones.

    Args:
        stream: The stream, which knows how many lines belong to a point.
        start: The first line of the block.
        size: The largest number of lines; exceeded only where a point is not divisible.
    """
    bounds = bounds_of(stream)
    if bounds and not is_joint(stream):
        end = bounds[bisect_right(bounds, start)]
        return min(start + size, end) if stream.is_divisible else end
    inner = start % stream.unit
    if inner == 0 and size >= stream.unit:
        return start + size - size % stream.unit
    end = start - inner + stream.unit
    return min(start + size, end) if stream.is_divisible else end


def bounds_of(stream: Stream | StreamFacts) -> tuple[int, ...] | None:
    """Return where the rows of points of different sizes begin and end; None for other streams."""
    return getattr(stream, "bounds", None)


def is_joint(stream: Stream | StreamFacts) -> bool:
    """Return whether rows of several matrices of different sizes can be computed together."""
    return getattr(stream, "is_joint", False)


def start_of_trial(stream: Stream, size: int, number: int = 0) -> int:
    """Return where a chunk begins that is measured: in the middle, or at the largest point.

    Lines at an edge often depend on few inputs. The chunk is one of those that the run computes,
    the one with the middle line: where two halves meet, a chunk takes more memory.

    Args:
        stream: The stream.
        size: The number of lines.
        number: How many chunks of this size were measured before: the next lines follow theirs, or
            precede them at the end.
    """
    if bounds := bounds_of(stream):
        heights = [stop - start for start, stop in pairwise(bounds)]
        largest = bounds[heights.index(max(heights))]
        return min(largest, max(0, bounds[-1] - size)) if is_joint(stream) else largest
    lines = stream.axis.lines(stream.shape)
    grid = stream.unit if size % stream.unit else size
    start = lines // 2 // grid * grid
    if start + (number + 1) * size <= lines:
        return start + number * size
    return start - number * size if number * size <= start else start


def to_numpy(values: Tensor) -> np.ndarray:
    """Return a tensor as numpy stores it: on the host, bfloat16 widened to float32."""
    if values.dtype == torch.bfloat16:
        values = values.float()
    return values.detach().resolve_conj().resolve_neg().cpu().numpy()


def stored_dtype(dtype: torch.dtype) -> np.dtype:
    """Return the numpy dtype that holds a torch dtype without loss."""
    return to_numpy(torch.empty(0, dtype=dtype)).dtype
