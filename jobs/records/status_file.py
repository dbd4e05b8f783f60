"""The status file of a job, its writer and its readers: a small JSON file beside the result.

Watching reads only these files and never opens, let alone locks, a result that is being written.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STATUS = "status.json"
ENDED = ("finished", "failed", "interrupted", "killed")
_UNFINISHED = ("planned", "running")
SECONDS_OF_SILENCE = 300.0
SECONDS_BETWEEN_UPDATES = 1.0


class StatusFile:
    """Keeps the file of one job true while it runs; written atomically, a reader sees it whole.

    The fields: ``state`` (planned, running, finished, failed, interrupted), ``host``, ``pid``,
    ``started`` and ``updated`` (ISO 8601, UTC), and what `update` is given. A state of running
    whose ``updated`` stands still belongs to a process that was killed.

    Args:
        path: The file; its directory is made when it is first written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = -SECONDS_BETWEEN_UPDATES
        self._facts: dict[str, Any] = {
            "state": "planned",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _now(),
        }

    def update(self, **facts: Any) -> None:
        """Write the file with changed facts.

        Args:
            facts: What JSON can hold, by name.
        """
        self._facts |= facts
        self._last = time.monotonic()
        self._write()

    def progress(self, lines_done: int, lines: int, computed: int, seconds: float) -> None:
        """Tell how far the job is; written once a second.

        Args:
            lines_done: Rows or columns on the disk or on their way there.
            lines: Those of the whole matrix.
            computed: How many of them this process computed.
            seconds: How long that took.
        """
        rate = computed / max(seconds, 1e-9)
        self._facts |= {
            "state": "running",
            "lines_done": lines_done,
            "lines": lines,
            "seconds": seconds,
            "lines_per_second": rate,
            "seconds_left": (lines - lines_done) / rate if rate else None,
        }
        if time.monotonic() - self._last >= SECONDS_BETWEEN_UPDATES:
            self.update()

    def _write(self) -> None:
        facts = self._facts | {"updated": _now()}
        scratch = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        # A job never fails because nobody can watch it.
        with contextlib.suppress(OSError):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                scratch.write_text(json.dumps(facts, indent=1))
                scratch.replace(self._path)
            finally:
                scratch.unlink(missing_ok=True)


def read_status(path: Path) -> dict[str, Any]:
    """The facts that a status file holds; none where there is no such file, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class JobStatus:
    """What a job last said of itself; fields that it did not write are empty.

    Attributes:
        directory: The directory of the run.
        state: ``planned``, ``running``, ``finished``, ``failed`` or ``interrupted``.
        operation: What is computed.
        strategy: How.
        function: Of what.
        host: On which machine.
        pid: By which process there.
        device: On which device.
        started: ISO 8601, UTC.
        updated: ISO 8601, UTC.
        lines: How many rows or columns there are.
        lines_done: How many of them are done.
        axis: What they are.
        seconds: How long it has taken.
        lines_per_second: How fast it is.
        seconds_left: How long it will still take.
        message: Why it failed.
    """

    directory: Path
    state: str = ""
    operation: str = ""
    strategy: str = ""
    function: str = ""
    host: str = ""
    pid: int = 0
    device: str = ""
    started: str = ""
    updated: str = ""
    lines: int = 0
    lines_done: int = 0
    axis: str = ""
    seconds: float = 0.0
    lines_per_second: float = 0.0
    seconds_left: float | None = None
    message: str = ""
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> JobStatus:
        """The status of a file; one that is no JSON says so in its state."""
        try:
            found = json.loads(path.read_bytes())
            if not isinstance(found, dict):
                raise ValueError("no record")
        except (OSError, ValueError):
            return cls(path.parent, state="unreadable")
        known = {f.name: f.type for f in fields(cls)}.keys() - {"directory", "other"}
        given = {name: found[name] for name in known if found.get(name) is not None}
        other = {name: value for name, value in found.items() if name not in known}
        return cls(path.parent, **given, other=other)

    def state_now(self) -> str:
        """The state, corrected by what the job could not write any more.

        ``killed`` where its process is gone from this machine; ``silent`` where it has said
        nothing for five minutes.
        """
        if self.state not in _UNFINISHED:
            return self.state
        if self.pid and self.host == socket.gethostname() and not _is_alive(self.pid):
            return "killed"
        if self.age() > SECONDS_OF_SILENCE:
            return "silent"
        return self.state

    def age(self) -> float:
        """Seconds since the status was written; 0 where it does not say."""
        try:
            written = datetime.fromisoformat(self.updated)
        except ValueError:
            return 0.0
        written = written if written.tzinfo else written.replace(tzinfo=UTC)
        return max(0.0, (datetime.now(UTC) - written).total_seconds())


def read_statuses(directory: Path) -> list[JobStatus]:
    """The status of every job below a directory, in order of their names."""
    return [JobStatus.read(path) for path in sorted(directory.rglob(STATUS))]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
