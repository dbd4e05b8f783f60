"""What a job is going to do, decided before it starts: arithmetic on frozen data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.errors import JobError


@dataclass(frozen=True)
class Plan:
    """The plan of a job.

    Attributes:
        operation: What is computed.
        strategy: How.
        function: The function with its parameters.
        device: Where.
        rows: Rows of the matrix.
        columns: Columns of the matrix.
        axis: What a block consists of: ``rows`` or ``columns``.
        chunk_size: How many of them are computed at once.
        missing: How many of them are not on the disk yet.
        dtype: The stored dtype.
        itemsize: Bytes an entry.
        bytes_free: Free bytes on the file system of the result.
        path: The result file.
    """

    operation: str
    strategy: str
    function: str
    device: str
    rows: int
    columns: int
    axis: str
    chunk_size: int
    missing: int
    dtype: str
    itemsize: int
    bytes_free: int
    path: str

    @property
    def lines(self) -> int:
        """Rows or columns in all, along the axis of the blocks."""
        return self.rows if self.axis == "rows" else self.columns

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
                f"the result needs {self.bytes_needed / 1e9:.2f} GB on the disk of {self.path} and "
                f"{self.bytes_free / 1e9:.2f} GB are free; choose another place with runs=..., or "
                "a smaller dtype"
            )
