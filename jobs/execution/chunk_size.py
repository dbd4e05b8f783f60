"""The chunk size of a running job."""

from __future__ import annotations

import math
from collections.abc import Callable

from jobs.errors import JobError
from jobs.machine.memory import Budget
from jobs.planning.cost import LADDER
from jobs.units import size

# Larger chunks are kept where a line takes at most this share of its time in smaller ones.
FASTER = 0.95
# Of so many blocks of a size the fastest counts: any one may have waited for something else.
BLOCKS_OF_A_SIZE = 2


class ChunkSize:
    """The chunk size of a running job.

    An allocation that fails halves it. Where planning had no time to measure larger chunks, they
    are tried in the run itself, where a block that is computed is not lost.

    Attributes:
        size: Rows or columns at once, now.
        used: All sizes so far, in order.
    """

    def __init__(
        self,
        size: int,
        budget: Budget,
        report: Callable[[str], None],
        *,
        largest: int | None = None,
    ) -> None:
        """Begin with a size.

        Args:
            size: Rows or columns at once.
            budget: What the job may use, for messages.
            report: Is told each halving, as a sentence.
            largest: How large chunks may become; None leaves them as they are.
        """
        self.size = size
        self.used = [size]
        self._budget = budget
        self._report = report
        self._largest = largest or size
        # Seconds a line in blocks of the size, and the size before with those in blocks of it.
        self._seconds: list[float] = []
        self._smaller: tuple[int, float] | None = None

    def learn(self, lines: int, seconds: float, remaining: int) -> None:
        """Take larger chunks from now on where a block shows that this may pay, or smaller again.

        Args:
            lines: How many rows or columns the block had.
            seconds: How long it took, written as well.
            remaining: How many are still to be computed.
        """
        if lines != self.size or (self._smaller is None and self.size >= self._largest):
            return
        self._seconds.append(seconds / lines)
        fastest = min(self._seconds)
        is_faster = self._smaller is None or fastest <= FASTER * self._smaller[1]
        if len(self._seconds) < BLOCKS_OF_A_SIZE and (self._smaller is None or not is_faster):
            return
        if not is_faster:
            assert self._smaller is not None
            self._largest = self._smaller[0]
            self._take(self._largest, None)
        elif LADDER * self.size <= min(self._largest, remaining // BLOCKS_OF_A_SIZE):
            self._take(LADDER * self.size, (self.size, fastest))
        else:
            self._largest, self._smaller = self.size, None

    def _take(self, size: int, smaller: tuple[int, float] | None) -> None:
        self.size = size
        self.used.append(size)
        self._seconds.clear()
        self._smaller = smaller

    def halve(self, start: int, axis: str, reason: str) -> None:
        """Go on with half the size.

        Args:
            start: The first line of the block that did not fit.
            axis: ``rows`` or ``columns``.
            reason: What the allocator said.

        Raises:
            JobError: The block was a single line.
        """
        if self.size == 1:
            raise JobError(
                f"out of memory with one of the {axis} at a time ({reason}); the budget was "
                f"{size(self._budget.bytes)}. What was computed is kept; the same command goes on "
                "where more memory is free"
            )
        self._take(math.ceil(self.size / 2), None)
        self._largest = self.size
        self._report(
            f"out of memory at {axis} {start} ({reason}); going on with {self.size} at a time"
        )
