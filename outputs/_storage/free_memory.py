"""How much memory this process could still take, before a file's declarations are believed."""

from __future__ import annotations

import contextlib
import re
import resource
from pathlib import Path


def free_memory() -> int | None:
    """Return the bytes free on the machine and under the limit of the process, if known."""
    figures = []
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
        figures += [int(found[1]) * 1024] if found else []
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            figures.append(max(0, limit - pages * resource.getpagesize()))
    return min(figures, default=None)
