"""How the time and memory of a strategy grow with the chunk size."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.planning.cost import Costs


@dataclass
class Growth:
    """How far a strategy has been measured in chunks of growing size.

    Attributes:
        costs: What was measured.
        opening: The peak of memory while it was opened, in bytes.
        sizes: The chunk sizes that are still to be measured.
        worse: How many of the last ones were slower than a smaller one.
    """

    costs: Costs
    opening: int
    sizes: list[int]
    worse: int = 0
