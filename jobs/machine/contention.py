"""How long threads of this process had to wait because other work occupied the processors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


def run_delays() -> dict[str, float]:
    """Return the seconds that each thread has waited on a run queue, by the thread's id.

    They are those of the kernel's statistics of the scheduler, `/proc/<pid>/task/<tid>/schedstat`;
    empty where the system keeps none.
    """
    delays = {}
    with suppress(OSError):
        for task in _TASKS.iterdir():
            # A thread may end meanwhile.
            with suppress(OSError, IndexError, ValueError):
                delays[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return delays


def longest_delay(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the longest time in seconds that one of the threads has waited between two readings.

    Threads compute side by side, so that their delays do not add up.
    """
    return max((delay - before.get(task, 0.0) for task, delay in after.items()), default=0.0)
