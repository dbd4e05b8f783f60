"""The chunk size of a running job."""

from __future__ import annotations

import math
from collections.abc import Callable

from jobs.errors import JobError
from jobs.machine.memory import Budget
from jobs.planning.cost import LADDER
from jobs.units import size

# Larger chunks are kept if a line takes at most this share of its time in smaller ones.
_FASTER = 0.95
# The fastest of so many blocks of a size counts: a single one may have waited for other work.
_BLOCKS_OF_A_SIZE = 2


class ChunkSize:
    """The chunk size of a running job.

    A failed allocation halves it. Where planning had no time to measure larger chunks, the run
    tries them, whose blocks are part of the result.

    Attributes:
        size: The number of rows or columns that are computed at once now.
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
            size: The number of rows or columns that are computed at once.
            budget: The memory that the job may use, for messages.
            report: Called with a sentence at each halving.
            largest: The largest size that the run may try; None for `size`.
        """
        self.size = size
        self.used = [size]
        self._budget = budget
        self._report = report
        self._largest = largest or size
        # Seconds per line in blocks of this size; the previous size with its seconds per line.
        self._seconds: list[float] = []
        self._smaller: tuple[int, float] | None = None

    def learn(self, lines: int, seconds: float, remaining: int) -> None:
        """Take larger chunks from now on if a block shows that they may pay, or smaller ones again.

        Args:
            lines: The number of rows or columns of the block.
            seconds: The time to compute it, without the time that other programs took.
            remaining: The number of rows or columns that are still to be computed.
        """
        if lines != self.size or (self._smaller is None and self.size >= self._largest):
            return
        self._seconds.append(seconds / lines)
        fastest = min(self._seconds)
        is_faster = self._smaller is None or fastest <= _FASTER * self._smaller[1]
        if len(self._seconds) < _BLOCKS_OF_A_SIZE and (self._smaller is None or not is_faster):
            return
        if not is_faster:
            assert self._smaller is not None
            self._largest = self._smaller[0]
            self._take(self._largest, None)
        elif LADDER * self.size <= min(self._largest, remaining // _BLOCKS_OF_A_SIZE):
            self._take(LADDER * self.size, (self.size, fastest))
        else:
            self._largest, self._smaller = self.size, None

    def _take(self, size: int, smaller: tuple[int, float] | None) -> None:
        self.size = size
        self.used.append(size)
        self._seconds.clear()
        self._smaller = smaller

    def halve(self, start: int, axis: str, reason: str) -> None:
        """Continue with half the size.

        Args:
            start: The first line of the block that did not fit.
            axis: ``rows`` or ``columns``.
            reason: The message of the allocator.

        Raises:
            JobError: The block was a single line.
        """
        if self.size == 1:
            raise JobError(
                f"out of memory with one of the {axis} at a time ({reason}); the budget was "
                f"{size(self._budget.bytes)}. What was computed is kept; the same command resumes "
                "where more memory is free"
            )
        self._take(math.ceil(self.size / 2), None)
        self._largest = self.size
        self._report(
            f"out of memory at {axis} {start} ({reason}); continuing with {self.size} at a time"
        )
