"""The clocks of the speed benchmark, of the host or of the device that computes, and their use."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from contenders import Contender, Lines
from workloads import Instance

Keep = Callable[[int, int, Any], None]
"""Does with the lines start, ..., stop - 1 what is to be done with them."""

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


def clock_for(group: str, device: torch.device) -> Clock:
    """The clock of a group of contenders; JAX, whose streams are its own, is waited for instead."""
    if device.type == "cuda" and group != "JAX":
        from on_cuda import CudaClock

        return CudaClock(device)
    return HostClock()


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


def timed(
    lines: Lines,
    contender: Contender,
    instance: Instance,
    seconds: float,
    keep: Keep = (lambda start, stop, values: None),
    end: Callable[[], None] = (lambda: None),
) -> float:
    """The time for all lines, from as many chunks as fit into the given time.

    Args:
        lines: Computes some.
        contender: Whose they are.
        instance: The workload.
        seconds: The time given.
        keep: What is done with computed lines.
        end: What is done after the last ones.
    """
    size = contender.chunk_size
    clock = clock_for(contender.group, instance.device)
    done = 0
    clock.start()
    keep(0, size, lines(0, size))
    first = clock.seconds()
    # A long first chunk is measurement enough, unless it was compiled.
    if first > seconds and contender.group != "JAX":
        return first * contender.lines / size
    clock.start()
    while done < contender.lines and (done == 0 or clock.is_within(seconds)):
        stop = min(done + size, contender.lines)
        keep(done, stop, lines(done, stop))
        done = stop
    end()
    return clock.seconds() * contender.lines / done
