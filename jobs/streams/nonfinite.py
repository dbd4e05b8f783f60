"""Count and locate entries that are NaN or infinite."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from autodiff_core import Axis, Block
from jobs.errors import JobError

_LOCATIONS_KEPT = 5


@dataclass(frozen=True)
class Entries:
    """Some entries of a matrix.

    Attributes:
        count: The number of entries.
        first: The (row, column) of the first few.
    """

    count: int = 0
    first: tuple[tuple[int, int], ...] = ()


def entries_not_finite(block: Block) -> Entries:
    """Return the entries of a block that are NaN or infinite, row by row."""
    values = block.values
    # A NaN or infinity spreads to the sum, which takes one pass; the sum of large finite entries
    # may be infinite too.
    wide = torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else None
    if bool(torch.isfinite(values.sum(dtype=wide))):
        return Entries()
    found = ~torch.isfinite(values)
    count = int(found.sum())
    if not count:
        return Entries()
    row, column = (block.start, 0) if block.axis is Axis.ROWS else (0, block.start)
    places = found.nonzero()[:_LOCATIONS_KEPT].tolist()
    return Entries(count, tuple((row + i, column + j) for i, j in places))


@dataclass
class NonFinite:
    """The entries of a matrix that are not finite, counted as blocks are computed.

    Attributes:
        policy: ``record`` counts them, ``fail`` stops the job at the first block with one.
        count: The number of entries so far.
        first: The (row, column) of the first few.
    """

    policy: str
    count: int = 0
    first: list[tuple[int, int]] = field(default_factory=list)

    def record(self, lines: str, found: Entries) -> None:
        """Count the entries of a block.

        Args:
            lines: The name of the block, for the message.
            found: The entries of the block that are not finite.

        Raises:
            JobError: There is an entry and the policy is ``fail``.
        """
        self.count += found.count
        self.first = [*self.first, *found.first][:_LOCATIONS_KEPT]
        if found.count and self.policy == "fail":
            row, column = found.first[0]
            raise JobError(
                f"{lines} hold {found.count} entries that are not finite, the first at row {row}, "
                f"column {column}; what was computed before is kept, and nonfinite=record "
                "continues with them"
            )

    def carry(self, count: int, first: list[tuple[int, int]]) -> None:
        """Count the entries that earlier starts of the job have written.

        Args:
            count: Their number.
            first: The (row, column) of the first few.

        Raises:
            JobError: There is an entry and the policy is ``fail``.
        """
        self.count += count
        self.first = [*self.first, *first][:_LOCATIONS_KEPT]
        if count and self.policy == "fail":
            row, column = first[0]
            raise JobError(
                f"what an earlier start has written holds {count} entries that are not finite, the "
                f"first at row {row}, column {column}; it is kept, and nonfinite=record continues "
                "with them"
            )

    def figures(self) -> dict[str, Any]:
        """Return what the result file keeps."""
        return {"count": self.count, "first": [list(place) for place in self.first]}
