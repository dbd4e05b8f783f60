"""The status file of a job, a small JSON file beside the result: its writer and its reader.

Watching reads only these files, and neither opens nor locks a result that is being written.
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

from jobs.paths import STATUS

ENDED = ("finished", "failed", "interrupted", "killed", "unreadable")
_UNFINISHED = ("planned", "running")
_WRITTEN = (*_UNFINISHED, "finished", "failed", "interrupted")
_SECONDS_OF_SILENCE = 300.0
_SECONDS_BETWEEN_UPDATES = 1.0
# A status takes about a kilobyte, and no job lasts longer, or is faster, than this number.
_MOST_BYTES = 2**20
_MOST_SECONDS = 1e18


class StatusFile:
    """Writes the status of a running job.

    The file is replaced atomically, so that a reader sees it whole. `JobStatus` describes its
    fields. If the process is killed, the file keeps the state ``running`` and its last `updated`.

    Args:
        path: The file; its directory is created when it is first written.
        facts: What the file says from the beginning, by name.
    """

    def __init__(self, path: Path, **facts: Any) -> None:
        self._path = path
        self._last = -_SECONDS_BETWEEN_UPDATES
        self._facts: dict[str, Any] = {
            "state": "planned",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _now(),
            **facts,
        }

    def update(self, **facts: Any) -> None:
        """Write the file with changed facts.

        Args:
            facts: Values that JSON can hold, by name.
        """
        self._facts |= facts
        self._last = time.monotonic()
        self._write()

    def finish(self, verdict: Mapping[str, str]) -> None:
        """Write that the job has finished, and how far its result is verified.

        Args:
            verdict: `state` and `state_reason` of the verification; empty if nothing is judged yet.
        """
        verification = {"verification": verdict["state"]} if verdict else {}
        reason = {"verification_reason": verdict["state_reason"]} if verdict else {}
        self.update(state="finished", message="", **verification, **reason)

    def progress(self, lines_done: int, lines: int, computed: int, seconds: float) -> None:
        """Record how far the job is; write the file at most once a second.

        Args:
            lines_done: Rows or columns that are on the disk or submitted to the writer.
            lines: The rows or columns of the whole matrix.
            computed: How many of them this process has computed.
            seconds: How long that has taken.
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
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_UPDATES:
            self.update()

    def _write(self) -> None:
        facts = self._facts | {"updated": _now()}
        # As `outputs.scratch_file` names it; importing that would slow down the watchers.
        scratch = self._path.with_name(f"{self._path.name}.{os.getpid():08x}.new")
        # A job must not fail because its status cannot be written.
        with contextlib.suppress(OSError):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                scratch.write_text(json.dumps(facts, indent=1))
                scratch.replace(self._path)
            finally:
                scratch.unlink(missing_ok=True)


@dataclass(frozen=True)
class JobStatus:
    """What a job last wrote about itself; a field that it did not write has its default.

    Attributes:
        directory: The directory of the run.
        state: ``planned``, ``running``, ``finished``, ``failed`` or ``interrupted``; or
            ``unreadable`` if the file is no status. `state_now` corrects it.
        operation: The operation, such as ``hessian``.
        strategy: The strategy, such as ``forward-mode``.
        function: The function's name and parameters.
        host: The name of the machine on which the job runs.
        pid: The number of its process there.
        device: The name of the device that computes.
        started: When the job started: ISO 8601, UTC.
        updated: When the file was written: ISO 8601, UTC.
        lines: The number of rows or columns of the matrix.
        lines_done: How many of them are done.
        axis: Whether lines are ``rows`` or ``columns``.
        seconds: How long computing has taken.
        lines_per_second: The rate of this process.
        seconds_left: The predicted time until all lines are done; None if there is no rate yet.
        message: Why the job failed; empty if it did not.
        verification: The state of the verification of a finished result, such as ``verified``.
        verification_reason: What was compared, or why nothing was.
        other: All further facts of the file, by name, such as ``chunk_size`` and
            ``peak_memory_bytes``.
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
    verification: str = ""
    verification_reason: str = ""
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> JobStatus:
        """Read a status file; one that is no status has the state ``unreadable`` and says why."""
        try:
            found = _facts(path)
        except ValueError as error:
            return cls(path.parent, state="unreadable", message=f"{path.name}: {error}")
        known = {each.name for each in fields(cls)} - {"directory", "other"}
        given = {name: found[name] for name in known if found.get(name) is not None}
        other = {name: value for name, value in found.items() if name not in known}
        return cls(path.parent, **given, other=other)

    def state_now(self) -> str:
        """Return the state, corrected by what the job could not write itself.

        An unfinished job is ``killed`` if its process no longer exists on this machine, and
        ``silent`` if it has written nothing for five minutes.
        """
        if self.state not in _UNFINISHED:
            return self.state
        if self.pid and self.host == socket.gethostname() and not is_alive(self.pid):
            return "killed"
        return "silent" if self._age() > _SECONDS_OF_SILENCE else self.state

    def _age(self) -> float:
        """Return the seconds since the file was written; 0 if it has no valid time."""
        try:
            written = datetime.fromisoformat(self.updated)
            written = written if written.tzinfo else written.replace(tzinfo=UTC)
            return max(0.0, (datetime.now(UTC) - written).total_seconds())
        # A time zone can move the first and the last day out of the calendar.
        except (ValueError, OverflowError):
            return 0.0


def report_death(path: Path, message: str) -> None:
    """Write into the status file of a job, for its process that a signal has ended, that it failed.

    Args:
        path: The file.
        message: Why the job failed.
    """
    found = _facts(path)
    if found is not None:
        status = StatusFile(path)
        status._facts = found
        status.update(state="failed", message=message)


def status_files(directory: Path) -> list[Path]:
    """Return the status files of all jobs below a directory, in order of their names."""
    return sorted(directory.rglob(STATUS))


def read_statuses(directory: Path) -> list[JobStatus]:
    """Read the status of every job below a directory, in order of their names."""
    return [JobStatus.read(path) for path in status_files(directory)]


def _facts(path: Path) -> dict[str, Any]:
    """Read the facts of a status file, of the types that `JobStatus` declares.

    Raises:
        ValueError: The file cannot be read, or is no status; the message is part of a sentence.
    """
    try:
        # A pipe would wait for a writer, and a device never ends.
        if not path.is_file():
            raise ValueError("this is not a file")
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"a status has at most {_MOST_BYTES} bytes")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or "this cannot be read") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("this is not JSON") from error
    if not isinstance(found, dict):
        raise ValueError("this is no JSON object")
    for name in (each.name for each in fields(JobStatus) if each.name in found):
        if not _is_valid(name, found[name]):
            raise ValueError(f"its {name} is invalid")
    return found


def _is_valid(name: str, value: Any) -> bool:
    """Return whether a fact has the type that `JobStatus` declares, or is absent (None)."""
    if name in ("directory", "other"):
        return False
    if value is None:
        return True
    if name in ("pid", "lines", "lines_done"):
        return type(value) is int and 0 <= value < 2**63
    if name == "state":
        return isinstance(value, str) and value in _WRITTEN
    if name in ("seconds", "lines_per_second", "seconds_left"):
        return type(value) in (int, float) and 0 <= value < _MOST_SECONDS
    return isinstance(value, str)


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:  # no number of a process
        return False
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
