"""The clocks of the speed benchmark, of the host or of the device that computes, and their use."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

now = time.perf_counter
"""The clock of the host; `--cpu-time` puts that of the processor here."""


class Clock(Protocol):
    """Measures what is done between `start` and `seconds`."""

    def start(self) -> None:
        """Begin, where nothing that was done before is still under way."""
        ...

    def is_within(self, seconds: float) -> bool:
        """Whether there is time for more."""
        ...

    def seconds(self) -> float:
        """The time until everything was done."""
        ...


class HostClock:
    """For what is done when a call returns."""

    def __init__(self) -> None:
        self._started = now()

    def start(self) -> None:
        """Begin."""
        self._started = now()

    def is_within(self, seconds: float) -> bool:
        """Whether there is time for more."""
        return now() - self._started < seconds

    def seconds(self) -> float:
        """The time since the beginning."""
        return now() - self._started


def median_time(
    action: Callable[[], Any], clock: Clock | None = None, *, repeats: int = 5
) -> float:
    """The median time of an action, after one that does not count."""
    clock = clock or HostClock()
    action()
    times = []
    for _ in range(repeats):
        clock.start()
        action()
        times.append(clock.seconds())
    return statistics.median(times)
