"""What a person, or a program that reads a log, sees of a job: plan, progress, outcome."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.planning.plan import Plan
from jobs.reporting.json_lines import JsonDisplay
from jobs.reporting.progress import Advance
from jobs.reporting.terminal import Display


class QuietDisplay(Display):
    """Prints the path of the result and nothing else."""

    def plan(self, plan: Plan) -> None:
        """Nothing."""

    def outcome(self, facts: dict[str, str], path: str) -> None:
        """The path alone."""
        self.console.print(path, markup=False)

    def already_finished(self, shape: str, path: str) -> None:
        """The path alone."""
        self.console.print(path, markup=False)

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Advance]:
        """Nothing."""
        yield lambda lines: None


def display_for(progress: str) -> Display:
    """The display that the option `progress` asks for.

    Args:
        progress: ``auto``, ``lines``, ``quiet`` or ``json``.
    """
    if progress == "quiet":
        return QuietDisplay()
    return JsonDisplay() if progress == "json" else Display(bar=progress == "auto")
