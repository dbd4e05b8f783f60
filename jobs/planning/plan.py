"""The plan of a job, made before it starts: arithmetic on frozen data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from jobs.errors import JobError
from jobs.units import size
from outputs import Axis

# A smaller share of waiting is ordinary.
_BUSY = 0.2


@dataclass(frozen=True)
class Plan:
    """The plan of a job.

    Attributes:
        operation: The operation that is computed, such as ``jacobian``.
        function: The function with its parameters, in words.
        strategy: The name of the strategy.
        strategy_reason: Why it was chosen, in words.
        device: The names of the devices that compute.
        workers: The number of processes that share the work.
        rows: Rows of the matrix.
        columns: Columns of the matrix: the passes that forward mode needs.
        axis: Whether blocks consist of rows or of columns.
        chunk_size: The number of lines (rows or columns) that are computed at once.
        chunk_reason: Why it was chosen, in words.
        missing: The number of lines that are not on the disk yet.
        dtype: The stored dtype.
        itemsize: Bytes of an entry.
        tile: Shape of a tile of the file; None where rows are contiguous.
        bytes_free: Free bytes on the file system of the result.
        path: The path of the result file.
        memory_budget: Bytes that the job may use: of the process on a CPU, else of the device.
        memory_reason: Where the budget comes from, in words.
        peak_bytes: Predicted peak of that memory.
        host_peak_bytes: Predicted peak of the process's memory.
        seconds: Predicted time for what is missing.
        waited: The share of the time in which measured chunks waited for a processor, which
            `seconds` does not contain.
        points: The number of points with a matrix each, whose rows are counted together in `rows`;
            None for a single point.
        entries: The number of entries, where there are matrices of different sizes; else None.
        structure: Which entries of the matrix are kept: ``full``, those of its ``diagonal``, or its
            diagonal ``blocks``.
        part: The part of a larger matrix that is computed, in words; empty for a whole matrix.
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
    waited: float = 0.0
    part: str = ""
    points: int | None = None
    entries: int | None = None
    structure: str = "full"

    @property
    def lines(self) -> int:
        """The number of rows or columns, along the axis of the blocks."""
        return self.axis.lines((self.rows, self.columns))

    @property
    def across(self) -> int:
        """The number of entries of a line."""
        return self.axis.across((self.rows, self.columns))

    @property
    def rows_of_a_point(self) -> int:
        """Rows of the matrix of one point: the passes that reverse mode needs."""
        return self.rows // (self.points or 1)

    @property
    def passes(self) -> dict[str, int]:
        """How many passes reverse and forward mode need for the matrix of one point.

        A second derivative is symmetric, and its rows are computed as columns where these are
        fewer.
        """
        rows, columns = self.rows_of_a_point, self.columns
        if self.structure != "full":
            columns = rows
        if self.operation in ("hessian", "ggn", "fisher"):
            rows = columns = min(rows, columns)
        return {"reverse": rows, "forward": columns}

    @property
    def extent(self) -> str:
        """The size of the matrix, or of the matrices of many points, in words."""
        if self.structure == "blocks":
            return (
                f"the diagonal blocks of {self.rows} rows x {self.rows} columns, each of at most "
                f"{self.columns}, {self.dtype}"
            )
        if self.entries is not None:
            return (
                f"{self.points} points of different sizes, {self.rows} rows of at most "
                f"{self.columns} columns, {self.dtype}"
            )
        if self.structure == "diagonal":
            return f"the diagonal of {self.rows} rows x {self.rows} columns, {self.dtype}"
        many = f"{self.points} points of " if self.points is not None else ""
        return f"{many}{self.rows_of_a_point} rows x {self.columns} columns, {self.dtype}"

    @property
    def bytes_of_matrix(self) -> int:
        """Bytes of all entries; a result that is compressed in the end needs them until then."""
        entries = self.rows * self.columns if self.entries is None else self.entries
        return entries * self.itemsize

    @property
    def bytes_needed(self) -> int:
        """Bytes that must be free on the disk; a file that was begun has reserved its space."""
        return 0 if self.missing < self.lines else self.bytes_of_matrix

    @property
    def blocks(self) -> int:
        """The smallest number of blocks to compute."""
        return math.ceil(self.missing / self.chunk_size)

    @property
    def busy(self) -> str:
        """That other programs occupy the processors, in words; empty where they hardly do."""
        if self.waited < _BUSY:
            return ""
        return f"other programs occupy the processors {self.waited:.0%} of the time"

    def check(self) -> None:
        """Refuse a job that does not fit on the disk.

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
        """Return everything that the plan says, as JSON can hold it."""
        return asdict(self) | {
            "lines": self.lines,
            "blocks": self.blocks,
            "passes": self.passes,
            "bytes_of_matrix": self.bytes_of_matrix,
            "bytes_needed": self.bytes_needed,
        }
