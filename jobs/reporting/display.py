"""What a person, or a program that reads a log, sees of a job: plan, progress, outcome."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from jobs.planning.plan import Plan
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

    def __init__(self, console: Console | None = None, *, bar: bool = True) -> None:
        """Print on standard output unless another console is given.

        Args:
            console: Where to print.
            bar: Whether a terminal shows a bar; else lines now and then, as elsewhere.
        """
        self.console = console or _Terminal(highlight=False, soft_wrap=True)
        self._bar = bar
        self._bytes_of_a_line = 0
        if not self.console.is_terminal:
            # rich assumes 80 columns there and would fold paths.
            self.console.width = WIDTH_WITHOUT_TERMINAL

    def plan(self, plan: Plan) -> None:
        """Show what is going to happen."""
        self._bytes_of_a_line = bytes_of_a_line(plan)
        self._table(
            f"{plan.operation} of {plan.function}",
            {
                "matrix": plan.extent,
                **({"part": plan.part} if plan.part else {}),
                "strategy": f"{plan.strategy} ({plan.strategy_reason})",
                "device": f"{plan.device}, {plan.workers} process"
                + ("es" if plan.workers > 1 else ""),
                "blocks": f"{plan.blocks} of up to {plan.chunk_size} {plan.axis} "
                f"({plan.chunk_reason}){_already_done(plan)}",
                "passes": f"{plan.rows_of_a_point} in reverse mode, {plan.columns} in forward mode"
                + (" for each point" if plan.points is not None else ""),
                "memory": f"{size(plan.peak_bytes)} predicted of {size(plan.memory_budget)} "
                f"({plan.memory_reason})",
                "time": f"{duration(plan.seconds)} predicted",
                "disk": f"{size(plan.bytes_of_matrix)} to write, {size(plan.bytes_free)} free, "
                + (f"tiles of {plan.tile[0]} x {plan.tile[1]}" if plan.tile else "row after row"),
                "result": plan.path,
            },
        )

    def outcome(self, facts: dict[str, str], path: str) -> None:
        """Show how it went; the last line is the path of the result."""
        if self.console.is_terminal:
            card = Panel(_grid(facts), title="done", box=box.ROUNDED, expand=False, style="green")
            self.console.print(card)
        else:
            self._table("done", facts)
        self.say(path)

    def already_finished(self, shape: str, path: str) -> None:
        """Say that there is nothing to do; the last line is the path of the result."""
        self.say(f"this job is finished already ({shape}); overwrite=true computes it again")
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
        if not (self.console.is_terminal and self._bar):
            yield _Now(total, unit, self._bytes_of_a_line).every(
                SECONDS_BETWEEN_LINES, lambda now: self.say(f"  {now}")
            )
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rest]}"),
        )
        now = _Now(total, unit, self._bytes_of_a_line)
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(unit, total=total, rest="")

            def advance(lines: int) -> None:
                now.count(lines)
                bar.update(task, advance=lines, rest=now.rest())

            yield advance

    def _table(self, title: str, facts: dict[str, str]) -> None:
        self.say(title)
        self.console.print(_grid(facts))


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


class JsonDisplay(Display):
    """Prints an object of JSON a line, with the key ``event``: for logs and other programs.

    Events are ``plan``, ``progress``, ``note`` and ``done``, whose ``facts`` are for people.
    Numbers are in bytes and seconds.
    """

    def plan(self, plan: Plan) -> None:
        """All of the plan's fields."""
        self._bytes_of_a_line = bytes_of_a_line(plan)
        self._emit("plan", **plan.figures())

    def outcome(self, facts: dict[str, str], path: str) -> None:
        """How it went; ``result`` is the path."""
        self._emit("done", result=path, facts=facts)

    def already_finished(self, shape: str, path: str) -> None:
        """That there was nothing to do; ``result`` is the path."""
        self._emit("done", result=path, facts={"matrix": shape}, finished_already=True)

    def say(self, text: str) -> None:
        """A note."""
        self._emit("note", text=text)

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Advance]:
        """Progress now and then."""
        yield _Now(total, unit, self._bytes_of_a_line).every(
            SECONDS_BETWEEN_LINES, lambda now: self._emit("progress", **now.figures())
        )

    def _emit(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "time": time.time(), **facts}, default=str)
        self.console.print(line, markup=False, soft_wrap=True)


def display_for(progress: str) -> Display:
    """The display that the option `progress` asks for.

    Args:
        progress: ``auto``, ``lines``, ``quiet`` or ``json``.
    """
    if progress == "quiet":
        return QuietDisplay()
    return JsonDisplay() if progress == "json" else Display(bar=progress == "auto")


class _Now:
    """How far a job is, from when it was made."""

    def __init__(self, total: int, unit: str, bytes_of_a_line: int) -> None:
        self._total = total
        self._unit = unit
        self._bytes_of_a_line = bytes_of_a_line
        self._done = 0
        self._started = time.monotonic()

    def count(self, lines: int) -> None:
        """Count some more."""
        self._done += lines

    def every(self, seconds: float, tell: Any) -> Advance:
        """Count, and tell at the end and when some time has passed since the last time."""
        last = self._started

        def advance(lines: int) -> None:
            nonlocal last
            self.count(lines)
            if time.monotonic() - last >= seconds or self._done >= self._total:
                last = time.monotonic()
                tell(self)

        return advance

    def figures(self) -> dict[str, Any]:
        """Numbers, in bytes and seconds."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = self._done / elapsed
        return {
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "seconds": elapsed,
            "seconds_left": (self._total - self._done) / rate,
            "lines_per_second": rate,
            "bytes_per_second": rate * self._bytes_of_a_line,
            "memory_bytes": resident_memory(),
        }

    def rest(self) -> str:
        """Rate, time, memory and speed, for people."""
        now = self.figures()
        return (
            f"{now['lines_per_second']:.3g}/s, {size(round(now['bytes_per_second']))}/s, "
            f"{size(now['memory_bytes'])} in memory, {duration(now['seconds'])}, "
            f"{duration(now['seconds_left'])} left"
        )

    def __str__(self) -> str:
        share = f"{self._done} of {self._total} {self._unit}"
        return f"{share} ({100 * self._done / self._total:.0f} %), {self.rest()}"


def bytes_of_a_line(plan: Plan) -> int:
    """Bytes of one row or column of a planned matrix, whichever its blocks consist of."""
    return plan.bytes_of_matrix // max(1, plan.lines)


def resident_memory() -> int:
    """Bytes that this process has in memory now; where that is not told, the most it ever had."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    # Kilobytes on most systems, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _grid(facts: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(f"  {name}"), Text(value))
    return table


def _already_done(plan: Plan) -> str:
    done = plan.lines - plan.missing
    return f"; {done} of {plan.lines} {plan.axis} are done already" if done else ""
