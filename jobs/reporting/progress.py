"""The progress of a job: rates, remaining time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from jobs.machine.process_memory import resident_memory
from jobs.planning.plan import Plan
from jobs.units import duration, size

SECONDS_BETWEEN_LINES = 5.0


class Advance(Protocol):
    """Called with the number of rows or columns that were computed since the last call."""

    def __call__(self, lines: int) -> None:
        """Count more rows or columns."""
        ...


class Progress:
    """Counts the rows or columns that a job has computed since this object was created.

    Args:
        total: The number of rows or columns to compute.
        unit: ``rows`` or ``columns``.
        bytes_of_a_line: The bytes of one of them.
    """

    def __init__(self, total: int, unit: str, bytes_of_a_line: int) -> None:
        self._total = total
        self._unit = unit
        self._bytes_of_a_line = bytes_of_a_line
        self._done = 0
        self._started = time.monotonic()

    def count(self, lines: int) -> None:
        """Count more rows or columns."""
        self._done += lines

    def every(self, seconds: float, show: Callable[[Progress], None]) -> Advance:
        """Return a function that counts, and shows the progress at intervals and at the end.

        Args:
            seconds: The least time between two calls of `show`, except for the last.
            show: Called with this object.
        """
        last = self._started

        def advance(lines: int) -> None:
            nonlocal last
            self.count(lines)
            if time.monotonic() - last >= seconds or self._done >= self._total:
                last = time.monotonic()
                show(self)

        return advance

    def figures(self) -> dict[str, Any]:
        """Return the progress as numbers, in bytes and seconds."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = self._done / elapsed
        return {
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "seconds": elapsed,
            "seconds_left": (self._total - self._done) / rate,
            "lines_per_second": rate,
            "bytes_per_second": rate * self._bytes_of_a_line,
            "memory_bytes": resident_memory(),
        }

    def rest(self) -> str:
        """Return rates, memory and times as text."""
        now = self.figures()
        return (
            f"{now['lines_per_second']:.3g}/s, {size(round(now['bytes_per_second']))}/s, "
            f"{size(now['memory_bytes'])} in memory, {duration(now['seconds'])}, "
            f"{duration(now['seconds_left'])} left"
        )

    def __str__(self) -> str:
        share = f"{self._done} of {self._total} {self._unit}"
        return f"{share} ({100 * self._done / self._total:.0f} %), {self.rest()}"


def bytes_of_a_line(plan: Plan) -> int:
    """Return the bytes of one line of a planned matrix: a row or a column, as the plan computes."""
    return plan.bytes_of_matrix // max(1, plan.lines)
