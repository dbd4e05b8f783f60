"""The report of the verification of a file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verification:
    """The outcome of verifying one file.

    Attributes:
        path: The file.
        problems: One sentence for each problem; empty for a sound file.
        operation: The result's operation; empty if it could not be read.
        shape: (rows, columns) of the matrix, or (points, rows, columns); None if it could not be
            read.
        dtype: Stored dtype of the matrix.
        complete: Whether committed blocks cover the whole axis.
        blocks: Number of committed blocks.
        corrupt: Ranges of the blocks whose data do not have their checksum.
        nonfinite: Number of entries in committed blocks that are NaN or infinite.
        right_error: The largest error of a row's product with the right probe, relative to
            |row| |vector|; None if there is no such probe or the result is incomplete.
        left_error: The same for the columns and the left probe.
        tolerance: The largest error that rounding explains; None without probes.
        lines_checked: Number of rows and columns whose products were compared. Those with entries
            that are not finite, or beyond 1e150, cannot be compared.
        asymmetry: For a Hessian M with equal probes v the largest entry of |M v - v M| relative
            to |row| |v|: a figure, not a problem.
        bytes_read: Bytes of the matrix that were read.
        seconds: Duration of the verification.
    """

    path: str
    problems: tuple[str, ...]
    operation: str = ""
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    complete: bool = False
    blocks: int = 0
    corrupt: tuple[tuple[int, int], ...] = ()
    nonfinite: int | None = None
    right_error: float | None = None
    left_error: float | None = None
    tolerance: float | None = None
    lines_checked: int = 0
    asymmetry: float | None = None
    bytes_read: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems
