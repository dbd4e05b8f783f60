"""What a person sees of a job: the plan, the progress, the outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from jobs.plan import Plan
from jobs.units import duration, size

SECONDS_BETWEEN_LINES = 5.0
WIDTH_WITHOUT_TERMINAL = 1000


class Advance(Protocol):
    """Is told how many rows or columns have been computed."""

    def __call__(self, lines: int) -> None:
        """Count some more."""
        ...


class _Terminal(Console):
    """Standard output. A closed pipe ends the program with an exit code of its own, not rich's."""

    def on_broken_pipe(self) -> None:
        """Let the error go on to where the exit code is decided."""
        raise


class Display:
    """Prints to the terminal, in plain lines where there is none."""

    def __init__(self, console: Console | None = None) -> None:
        """Print on standard output unless another console is given."""
        self.console = console or _Terminal(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            # rich assumes 80 columns there and would fold paths.
            self.console.width = WIDTH_WITHOUT_TERMINAL

    def plan(self, plan: Plan) -> None:
        """Show what is going to happen."""
        self._table(
            f"{plan.operation} of {plan.function}",
            {
                "matrix": f"{plan.rows} rows x {plan.columns} columns, {plan.dtype}",
                **({"part": plan.part} if plan.part else {}),
                "strategy": f"{plan.strategy} ({plan.strategy_reason})",
                "device": f"{plan.device}, {plan.workers} process",
                "blocks": f"{plan.blocks} of up to {plan.chunk_size} {plan.axis} "
                f"({plan.chunk_reason}){_already_done(plan)}",
                "passes": f"{plan.rows} in reverse mode, {plan.columns} in forward mode",
                "memory": f"{size(plan.peak_bytes)} predicted of {size(plan.memory_budget)} "
                f"({plan.memory_reason})",
                "time": f"{duration(plan.seconds)} predicted",
                "disk": f"{size(plan.bytes_of_matrix)} to write, {size(plan.bytes_free)} free",
                "result": plan.path,
            },
        )

    def outcome(self, facts: dict[str, str], path: str) -> None:
        """Show how it went; the last line is the path of the result."""
        self._table("done", facts)
        self.say(path)

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False)

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Advance]:
        """Show progress while the body runs: a bar on a terminal, else a line now and then.

        Args:
            total: How many rows or columns there are to compute.
            unit: What they are.
        """
        if not self.console.is_terminal:
            yield _Lines(self, total, unit)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(unit, total=total)
            yield lambda lines: bar.advance(task, lines)

    def _table(self, title: str, facts: dict[str, str]) -> None:
        self.say(title)
        table = Table.grid(padding=(0, 2), pad_edge=False)
        table.add_column()
        table.add_column(overflow="fold")
        for name, value in facts.items():
            table.add_row(Text(f"  {name}"), Text(value))
        self.console.print(table)


class _Lines:
    """Progress as plain lines with the time left."""

    def __init__(self, display: Display, total: int, unit: str) -> None:
        self._display = display
        self._total = total
        self._unit = unit
        self._done = 0
        self._started = self._last = time.monotonic()

    def __call__(self, lines: int) -> None:
        self._done += lines
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._last = now
        elapsed = now - self._started
        left = elapsed / self._done * (self._total - self._done)
        self._display.say(
            f"  {self._done} of {self._total} {self._unit} "
            f"({100 * self._done / self._total:.0f} %), {duration(elapsed)}, "
            f"{duration(left)} left"
        )


def _already_done(plan: Plan) -> str:
    done = plan.lines - plan.missing
    return f"; {done} of {plan.lines} {plan.axis} are done already" if done else ""
