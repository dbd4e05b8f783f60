"""Choose how a job shows its plan, progress and outcome."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.planning.plan import Plan
from jobs.reporting.json_lines import JsonDisplay
from jobs.reporting.progress import Advance
from jobs.reporting.terminal import Display
from outputs import Verdict


class QuietDisplay(Display):
    """Prints only the path of the result."""

    def plan(self, plan: Plan) -> None:
        """Print nothing."""

    def outcome(self, verdict: Verdict, facts: dict[str, str], path: str) -> None:
        """Print the path of the result."""
        self.console.print(path, markup=False)

    def already_finished(self, verdict: Verdict, shape: str, path: str, identity: str) -> None:
        """Print the path of the result."""
        self.console.print(path, markup=False)

    def warn(self, text: str) -> None:
        """Print the line on standard error."""
        print(text, file=sys.stderr)

    def say(self, text: str) -> None:
        """Print nothing."""

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Advance]:
        """Print nothing."""
        yield lambda lines: None


class SilentDisplay(QuietDisplay):
    """Prints nothing: a caller from Python has the result itself."""

    def outcome(self, verdict: Verdict, facts: dict[str, str], path: str) -> None:
        """Print nothing."""

    def already_finished(self, verdict: Verdict, shape: str, path: str, identity: str) -> None:
        """Print nothing."""


def display_for(progress: str, quiet: type[Display] = QuietDisplay) -> Display:
    """Return the display for the option `progress`.

    Args:
        progress: ``auto``, ``lines``, ``quiet`` or ``json``.
        quiet: The display for ``quiet``.
    """
    if progress == "quiet":
        return quiet()
    return JsonDisplay() if progress == "json" else Display(bar=progress == "auto")
