"""The report of the verification of a file."""

from __future__ import annotations

from dataclasses import dataclass, replace

from outputs._format.description import DIAGONAL, FULL
from outputs._format.verification_state import Verdict, VerificationState, covering, weakest

UNKNOWN = Verdict(VerificationState.NOT_VERIFIED, "the file could not be read")

_NO_PRODUCTS = (
    "this is by the job, which compared whole rows or columns; the file holds the diagonal, whose "
    "checksums were compared now, and of which no product can be"
)


@dataclass(frozen=True)
class Verification:
    """The outcome of verifying one file.

    Attributes:
        path: The file.
        problems: One sentence for each problem; empty for a sound file.
        operation: The result's operation; empty if it could not be read.
        shape: (rows, columns) of the matrix, or (points, rows, columns); None if it could not be
            read.
        structure: Which entries of the matrix the file holds: ``full``, ``diagonal`` or ``blocks``.
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
        lines_unchecked: Number of rows, or of columns if these are fewer, whose products could not
            be compared: either side covers all entries.
        recorded: What the job that wrote the file says of its numbers.
        asymmetry: For a Hessian M with equal probes v the largest entry of |M v - v M| relative
            to |row| |v|: a figure, not a problem.
        bytes_read: Bytes of the matrix that were read.
        seconds: Duration of the verification.
    """

    path: str
    problems: tuple[str, ...]
    operation: str = ""
    shape: tuple[int, ...] | None = None
    structure: str = FULL
    dtype: str = ""
    complete: bool = False
    blocks: int = 0
    corrupt: tuple[tuple[int, int], ...] = ()
    nonfinite: int | None = None
    right_error: float | None = None
    left_error: float | None = None
    tolerance: float | None = None
    lines_checked: int = 0
    lines_unchecked: int = 0
    recorded: Verdict = UNKNOWN
    asymmetry: float | None = None
    bytes_read: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the file is undamaged; `verdict` says how far its numbers are verified."""
        return not self.problems

    @property
    def products(self) -> Verdict:
        """What the products of the matrix with the stored probes verify, the record aside."""
        if self.tolerance is None:
            return Verdict(VerificationState.NOT_VERIFIED, "the file holds no probes")
        error = max(e for e in (self.right_error, self.left_error, 0.0) if e is not None)
        return covering(
            self.lines_checked,
            self.lines_checked + self.lines_unchecked,
            "rows and columns multiply with the stored probes as they should, largest relative "
            f"error {error:.1e} (tolerance {self.tolerance:.1e})",
            f"{self.lines_unchecked} lines have no finite product",
        )

    @property
    def verdict(self) -> Verdict:
        """How far the numbers are verified: by the products now, and by the record of the job."""
        if self.problems:
            return Verdict(VerificationState.NOT_VERIFIED, "; ".join(self.problems))
        if self.structure == DIAGONAL:
            return replace(self.recorded, reason=f"{self.recorded.reason}; {_NO_PRODUCTS}")
        # Without products nothing can be repeated, and so nothing be called verified.
        if self.tolerance is None and self.recorded.state is not VerificationState.VERIFIED:
            return self.recorded
        return weakest((self.recorded, self.products))

    @property
    def exit_code(self) -> int:
        """The exit code of `outputs.verify`: 1 with problems, else that of the state."""
        return 1 if self.problems else self.verdict.state.exit_code
