"""The small status files beside results, as those who watch read them.

A job writes `status.json`; watching reads only these and never opens, let alone locks, a result.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STATUS = "status.json"
ENDED = ("finished", "failed", "interrupted", "killed")
_UNFINISHED = ("planned", "running")
SECONDS_OF_SILENCE = 300.0


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
