"""Show a job as JSON, one object per line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.planning.plan import Plan
from jobs.reporting.progress import SECONDS_BETWEEN_LINES, Advance, Progress, bytes_of_a_line
from jobs.reporting.terminal import Display
from outputs import Verdict


class JsonDisplay(Display):
    """Prints one JSON object per line, with the key ``event``, for logs and other programs.

    Events are ``plan``, ``progress``, ``note``, ``warning`` and ``done``. Numbers are in bytes and
    seconds; the ``facts`` of ``done`` are text for people.
    """

    def plan(self, plan: Plan) -> None:
        """Print all fields of the plan."""
        self._bytes_of_a_line = bytes_of_a_line(plan)
        self._emit("plan", **plan.figures())

    def outcome(self, verdict: Verdict, facts: dict[str, str], path: str) -> None:
        """Print verdict and facts of a finished job; ``result`` is the path."""
        self._emit("done", **verdict.record(), result=path, facts=facts)

    def already_finished(self, verdict: Verdict, shape: str, path: str, identity: str) -> None:
        """Print that the job was finished before; ``result`` is the path."""
        facts = {"matrix": shape, "identity": identity}
        self._emit("done", **verdict.record(), result=path, facts=facts, finished_already=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._emit("warning", text=text)

    def say(self, text: str) -> None:
        """Print a note."""
        self._emit("note", text=text)

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Advance]:
        """Print the progress every five seconds while the body runs."""
        yield Progress(total, unit, self._bytes_of_a_line).every(
            SECONDS_BETWEEN_LINES, lambda now: self._emit("progress", **now.figures())
        )

    def _emit(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "time": time.time(), **facts}, default=str)
        self.console.print(line, markup=False, soft_wrap=True)
