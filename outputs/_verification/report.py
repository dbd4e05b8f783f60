"""What the verification of a file found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verification:
    """What was found about one file.

    Attributes:
        path: The file.
        problems: One sentence each; none for a sound file.
        operation: That of the result, "" where it could not be read.
        shape: (rows, columns) of the matrix, or (points, rows, columns).
        dtype: Its stored dtype.
        complete: Whether committed blocks cover the whole axis.
        blocks: Number of committed blocks.
        corrupt: Ranges of the blocks whose data do not have their checksum.
        nonfinite: Entries that are NaN or infinite, in committed blocks.
        right_error: The largest error of a row's product with the right probe, relative to
            |row| |vector|; None where there is no such probe or the result is incomplete.
        left_error: The same of the columns and the left probe.
        tolerance: The largest honest error; None without probes.
        lines_checked: Rows and columns whose products were compared. Those with entries that are
            not finite, or beyond 1e150, cannot be.
        asymmetry: For a Hessian M with equal probes v the largest entry of |M v - v M| relative
            to |row| |v|: a figure, not a problem.
        bytes_read: Of the matrix.
        seconds: How long it took.
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
        """Whether nothing is wrong."""
        return not self.problems
