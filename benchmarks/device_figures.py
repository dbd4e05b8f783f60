"""The parts of the speed benchmark that need a device beside the CPU."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from collections.abc import Iterable
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from clocks import median_time
from contenders import Contender, Lines
from device_clock import DeviceClock
from speed_writing import STORED, Computed, as_block, finished
from torch.profiler import ProfilerActivity, profile

from jobs.machine.accelerator import device_memory, device_name, release_cache
from jobs.machine.device_copies import copies_to_host

BLOCKS = 32
"""The number of blocks from which the figures of a stream are computed."""


def description(device: torch.device) -> dict[str, Any]:
    """Describe the device and its driver."""
    return {
        "device": device_name(device),
        "device_bytes": (device_memory(device) or (0, 0))[1],
        "cuda": torch.version.cuda,
        "driver": driver(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def driver() -> str:
    """Return the version of NVIDIA's driver; empty if it is unknown."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    printed = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return printed[0].strip() if printed else ""


def free_bytes(device: torch.device) -> int:
    """Return the free memory of the device, after torch has released its cache."""
    release_cache()
    memory = device_memory(device)
    assert memory is not None
    return memory[0]


def rate_of_copies_to_host(device: torch.device) -> float:
    """Return the bytes per second from the device into pinned memory."""
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty(source.shape, pin_memory=True)
    seconds = median_time(lambda: target.copy_(source, non_blocking=True), DeviceClock(device))
    return 4 * source.numel() / seconds


def figures(lines: Lines, contender: Contender, device: torch.device) -> dict[str, float]:
    """Measure how well our stream keeps the device busy.

    Args:
        lines: Computes our blocks.
        contender: The contender.
        device: The device.

    Returns:
        ``computing_seconds`` and ``copying_seconds`` of some blocks separately, and
        ``both_seconds`` of the stream that does both, as in a job; ``overlap``, the ratio of the
        last to the longer of the others; ``utilisation``, the share of the stream's time in which
        kernels ran, 0 where torch's profiler sees none.
    """
    ranges = blocks_of(contender)
    copy = copies_to_host(device)
    assert copy is not None
    ready = as_block(lines(*ranges[0]), contender)

    def computing() -> None:
        for start, stop in ranges:
            lines(start, stop)

    def copying() -> None:
        for _ in ranges:
            copy(ready, STORED)()

    def both() -> None:
        computed: Iterable[Computed] = ((a, b, lines(a, b)) for a, b in ranges)
        deque(finished(computed, contender, device), maxlen=0)

    clock = DeviceClock(device)
    alone = {
        "computing_seconds": median_time(computing, clock, repeats=3),
        "copying_seconds": median_time(copying, clock, repeats=3),
    }
    together = median_time(both, clock, repeats=3)
    activity = getattr(ProfilerActivity, device.type.upper(), ProfilerActivity.CPU)
    with profile(activities=[activity]) as profiler:
        clock.start()
        both()
        profiled = clock.seconds()
    kernels = [event.time_range for event in profiler.events() or () if is_kernel(event)]
    busy = length_of_union((kernel.start, kernel.end) for kernel in kernels) / 1e6
    return {
        **alone,
        "both_seconds": together,
        "overlap": together / max(alone.values()),
        "utilisation": busy / profiled,
    }


def blocks_of(contender: Contender) -> list[tuple[int, int]]:
    """Return the ranges of some blocks, repeating those of a short matrix."""
    size, lines = contender.chunk_size, contender.lines
    ranges = [(start, min(start + size, lines)) for start in range(0, lines, size)]
    return list(islice(cycle(ranges), BLOCKS))


def is_kernel(event: Any) -> bool:
    """Return whether an event of the profiler is a kernel: neither a copy nor host code."""
    return (
        event.device_type.name != "CPU"
        and not event.is_user_annotation
        and not event.name.startswith(("Memcpy", "Memset"))
    )


def length_of_union(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals; concurrent kernels count once."""
    covered, end = 0.0, -np.inf
    for start, stop in sorted(intervals):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return float(covered)
