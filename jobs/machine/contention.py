"""How long threads of this process had to wait because other work occupied the processors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


def run_delays() -> dict[str, tuple[float, float]]:
    """Return the seconds that each thread has run, and waited on a run queue, by the thread's id.

    They are those of the kernel's statistics of the scheduler, `/proc/<pid>/task/<tid>/schedstat`;
    empty where the system keeps none.
    """
    delays = {}
    with suppress(OSError):
        for task in _TASKS.iterdir():
            # A thread may end meanwhile.
            with suppress(OSError, IndexError, ValueError):
                ran, waited, *_ = (task / "schedstat").read_text().split()
                delays[task.name] = int(ran) / 1e9, int(waited) / 1e9
    return delays


def longest_delay(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> float:
    """Return the longest time in seconds that a thread which computes has waited meanwhile.

    Threads compute side by side, so that their delays do not add up. One that has run for less than
    half as long as the busiest one looks after something else, and the others do not wait for it.

    Args:
        before: What `run_delays` returned at the beginning.
        after: What it returned at the end.
    """
    changes = []
    for task, (ran, waited) in after.items():
        ran_before, waited_before = before.get(task, (0.0, 0.0))
        changes.append((ran - ran_before, waited - waited_before))
    busiest = max((ran for ran, _ in changes), default=0.0)
    return max((waited for ran, waited in changes if 2 * ran >= busiest), default=0.0)
