"""Time a contender by a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from clocks import Clock, HostClock
from contenders import DEFAULT, SWEPT, Contender, Lines
from workloads import Instance

Keep = Callable[[int, int, Any], None]
"""Stores, or drops, the lines start, ..., stop - 1."""


def clock_for(group: str, device: torch.device) -> Clock:
    """Return the clock of a group; JAX has its own streams, so the host waits for it instead."""
    if device.type != "cpu" and group != "JAX":
        from device_clock import DeviceClock

        return DeviceClock(device)
    return HostClock()


def timed(
    lines: Lines,
    contender: Contender,
    instance: Instance,
    seconds: float,
    keep: Keep = (lambda start, stop, values: None),
    end: Callable[[], None] = (lambda: None),
) -> float:
    """Return the time for all lines, from as many chunks as fit into the given time.

    Args:
        lines: Computes a range of lines.
        contender: The contender that they belong to.
        instance: The workload.
        seconds: The time available.
        keep: Called with each range of computed lines.
        end: Called after the last range, within the measured time.
    """
    size = contender.chunk_size
    clock = clock_for(contender.group, instance.device)
    done, first = 0, 0.0
    # JAX compiles in the first chunk; ours record in it, and prepare for its size in the second.
    for _ in range(3 if contender.group in ("JAX", SWEPT, DEFAULT) else 1):
        clock.start()
        keep(0, size, lines(0, size))
        first = clock.seconds()
    # A long chunk is a sufficient measurement.
    if first > seconds:
        return first * contender.lines / size
    clock.start()
    while done < contender.lines and (done == 0 or clock.is_within(seconds)):
        stop = min(done + size, contender.lines)
        keep(done, stop, lines(done, stop))
        done = stop
    end()
    return clock.seconds() * contender.lines / done
