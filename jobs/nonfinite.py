"""Entries that are NaN or infinite: counted, located, told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from autodiff_core import Block
from jobs.errors import JobError

LOCATIONS_KEPT = 5


@dataclass
class NonFinite:
    """The count of entries that are not finite.

    Attributes:
        policy: ``record`` counts them, ``fail`` stops the job at the first block with one.
        count: How many there are so far.
        first: The (row, column) of the first few.
    """

    policy: str
    count: int = 0
    first: list[tuple[int, int]] = field(default_factory=list)

    def inspect(self, block: Block) -> None:
        """Count those of a block.

        Raises:
            JobError: There is one and the policy is ``fail``.
        """
        found = ~torch.isfinite(block.values)
        count = int(found.sum())
        if not count:
            return
        self.count += count
        row, column = (block.start, 0) if block.axis == "rows" else (0, block.start)
        wanted = LOCATIONS_KEPT - len(self.first)
        self.first += [(row + int(i), column + int(j)) for i, j in found.nonzero()[:wanted]]
        if self.policy == "fail":
            raise JobError(
                f"{block.axis} {block.start} to {block.stop} hold {count} entries that are not "
                f"finite, the first at row {self.first[0][0]}, column {self.first[0][1]}; what was "
                "computed before is kept, and nonfinite=record goes on with them"
            )

    def figures(self) -> dict[str, Any]:
        """What the result file keeps."""
        return {"count": self.count, "first": [list(place) for place in self.first]}
