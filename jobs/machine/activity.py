"""What a job is doing, in memory that outlives its process, for the process that supervises it.

A signal such as SIGSEGV ends a process at once. So a job writes down what it is about to try, and
its supervisor reads that after the end and decides what the next start does without.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import asdict, dataclass
from pathlib import Path

_BYTES = 2**14


@dataclass(frozen=True)
class Activity:
    """What a job is doing.

    Attributes:
        job: The path of its status file, which distinguishes it from other jobs of a sweep.
        doing: What it does, in words that follow "while".
        leaves_out: What the job can do without, should this end the process: the name of a
            strategy, ``route <name>`` for a route of the check, ``differences``, or
            ``detection``; empty if there is nothing to do without.
        advice: What the user may try, should this end the process; empty if nothing is known.
        chunk_size: The number of rows or columns that are computed at once; None before any.
    """

    job: str
    doing: str
    leaves_out: str = ""
    advice: str = ""
    chunk_size: int | None = None


@dataclass(frozen=True)
class Death:
    """The end of an earlier process of this program by a signal.

    Attributes:
        activity: What it was doing; None if it was between jobs or loaded one.
        signal: The name of the signal.
        is_for_memory: Whether the system killed it because memory ran out.
    """

    activity: Activity | None
    signal: str
    is_for_memory: bool

    @property
    def reason(self) -> str:
        """What happened, in words."""
        doing = self.activity.doing if self.activity else "the job was loaded"
        if self.is_for_memory:
            return f"the system killed the job because no memory was free while {doing}"
        return f"the process was ended by {self.signal} while {doing}"


# Forked processes inherit both: the memory is shared, the list is as it was when they began.
_deaths: list[Death] = []
_shared: mmap.mmap | None = None


def share() -> None:
    """Let processes that this one forks from now on report what they do."""
    global _shared
    _shared = _shared or mmap.mmap(-1, _BYTES)


def announce(activity: Activity | None) -> None:
    """Write down what the job does next; None for no job. Does nothing without a supervisor."""
    if _shared is not None:
        text = b"" if activity is None else json.dumps(asdict(activity)).encode()
        _shared[: len(text) + 1] = text[: _BYTES - 1] + b"\0"


def last_activity() -> Activity | None:
    """Return what was last written down; None if that is no job."""
    if _shared is None:
        return None
    try:
        return Activity(**json.loads(_shared[:].partition(b"\0")[0]))
    # A process may have died while it wrote.
    except (ValueError, TypeError):
        return None


def remember(death: Death) -> None:
    """Let processes that this one forks from now on know of a death."""
    _deaths.append(death)


def deaths_of(job: str) -> list[Death]:
    """Return the deaths of earlier processes while they did something for a job.

    Args:
        job: The path of its status file.
    """
    return [each for each in _deaths if each.activity is not None and each.activity.job == job]


def deaths_below(directory: Path) -> list[Death]:
    """Return the deaths of earlier processes while they did something for a job in a directory."""
    return [
        each
        for each in _deaths
        if each.activity is not None and Path(each.activity.job).is_relative_to(directory)
    ]
