"""The state of a job for watchers: a small JSON file beside the result.

Watching must never touch the result itself, which is being written.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
