"""Clocks of the speed benchmark: of the host, or of the device that computes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

now = time.perf_counter
"""The clock of the host; `--cpu-time` replaces it by processor time."""


class Clock(Protocol):
    """Measures the work between `start` and `seconds`."""

    def start(self) -> None:
        """Start the clock when all earlier work is done."""
        ...

    def is_within(self, seconds: float) -> bool:
        """Return whether less than this time has passed."""
        ...

    def seconds(self) -> float:
        """Return the time until all work was done."""
        ...


class HostClock:
    """A clock for work that is done when a call returns."""

    def __init__(self) -> None:
        self._started = now()

    def start(self) -> None:
        """Start the clock."""
        self._started = now()

    def is_within(self, seconds: float) -> bool:
        """Return whether less than this time has passed."""
        return now() - self._started < seconds

    def seconds(self) -> float:
        """Return the time since the start."""
        return now() - self._started


def median_time(
    action: Callable[[], Any], clock: Clock | None = None, *, repeats: int = 5
) -> float:
    """Return the median time of an action, after one run that does not count."""
    clock = clock or HostClock()
    action()
    times = []
    for _ in range(repeats):
        clock.start()
        action()
        times.append(clock.seconds())
    return statistics.median(times)
