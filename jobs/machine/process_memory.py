"""The memory of this process, as the kernel reports it."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def kernel_figure(name: str) -> int | None:
    """Return a figure of /proc/self/status in bytes; None where the system does not report it.

    Args:
        name: The field as proc(5) names it, such as ``VmData``.
    """
    if not _STATUS.exists():
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    return int(found[1]) * 1024 if found else None


def resident_memory() -> int:
    """Return the bytes that this process has in memory; where unknown, its peak."""
    resident = kernel_figure("VmRSS")
    return peak_resident_memory() if resident is None else resident


def peak_resident_memory() -> int:
    """Return the most bytes that this process has had in memory."""
    if (peak := kernel_figure("VmHWM")) is not None:
        return peak
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
