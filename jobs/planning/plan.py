"""What a job is going to do, decided before it starts: arithmetic on frozen data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from jobs.errors import JobError
from jobs.units import size
from outputs import Axis


@dataclass(frozen=True)
class Plan:
    """The plan of a job.

    Attributes:
        operation: What is computed.
        function: The function with its parameters.
        strategy: How.
        strategy_reason: Why so.
        device: Where.
        workers: How many processes share the work.
        rows: Rows of the matrix.
        columns: Columns of the matrix: the passes that forward mode needs.
        axis: What a block consists of: ``rows`` or ``columns``.
        chunk_size: How many of them are computed at once.
        chunk_reason: Why so many.
        missing: How many of them are not on the disk yet.
        dtype: The stored dtype.
        itemsize: Bytes an entry.
        tile: Shape of a tile of the file; None where rows lie one after the other.
        bytes_free: Free bytes on the file system of the result.
        path: The result file.
        memory_budget: Bytes that the job may use: of the process on a CPU, else of the device.
        memory_reason: Where that figure comes from.
        peak_bytes: Predicted peak of that memory.
        host_peak_bytes: Predicted peak of the process's memory.
        seconds: Predicted time for what is missing.
        points: At how many points there is a matrix, whose rows are counted together in `rows`;
            None where there is one point.
        part: Which part of a larger matrix it is, in words; empty for a whole one.
    """

    operation: str
    function: str
    strategy: str
    strategy_reason: str
    device: str
    workers: int
    rows: int
    columns: int
    axis: Axis
    chunk_size: int
    chunk_reason: str
    missing: int
    dtype: str
    itemsize: int
    tile: tuple[int, int] | None
    bytes_free: int
    path: str
    memory_budget: int
    memory_reason: str
    peak_bytes: int
    host_peak_bytes: int
    seconds: float
    part: str = ""
    points: int | None = None

    @property
    def lines(self) -> int:
        """Rows or columns in all, along the axis of the blocks."""
        return self.axis.lines((self.rows, self.columns))

    @property
    def across(self) -> int:
        """The number of entries of a line."""
        return self.axis.across((self.rows, self.columns))

    @property
    def rows_of_a_point(self) -> int:
        """Rows of the matrix of one point: the passes that reverse mode needs there."""
        return self.rows // (self.points or 1)

    @property
    def extent(self) -> str:
        """How large the matrix is, or the matrices of many points are, in words."""
        many = f"{self.points} points of " if self.points is not None else ""
        return f"{many}{self.rows_of_a_point} rows x {self.columns} columns, {self.dtype}"

    @property
    def bytes_of_matrix(self) -> int:
        """Bytes of all entries; a compressed result needs them too, until it is finished."""
        return self.rows * self.columns * self.itemsize

    @property
    def bytes_needed(self) -> int:
        """Bytes that are still to be written: none of those whose space is reserved already."""
        return 0 if self.missing < self.lines else self.bytes_of_matrix

    @property
    def blocks(self) -> int:
        """Blocks to compute, at least."""
        return math.ceil(self.missing / self.chunk_size)

    def check(self) -> None:
        """Refuse a job that cannot fit.

        Raises:
            JobError: The disk has too little room.
        """
        if self.bytes_needed > self.bytes_free:
            raise JobError(
                f"the result needs {size(self.bytes_needed)} on the disk of {self.path} and "
                f"{size(self.bytes_free)} are free; another place is chosen with runs=..., a "
                "smaller dtype with output.dtype=float32, a part of the matrix with shard=0/4, "
                "a part of its columns with wrt.pattern=..."
            )

    def figures(self) -> dict[str, Any]:
        """Everything that the plan says, as JSON can hold it."""
        return asdict(self) | {
            "lines": self.lines,
            "blocks": self.blocks,
            "passes": {"reverse": self.rows_of_a_point, "forward": self.columns},
            "bytes_of_matrix": self.bytes_of_matrix,
            "bytes_needed": self.bytes_needed,
        }
