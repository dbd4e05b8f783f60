"""Show a job on a terminal, or as plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich import progress as rich_progress
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from jobs.planning.plan import Plan
from jobs.reporting.console import WIDTH_WITHOUT_TERMINAL, SafeConsole
from jobs.reporting.notebook import bar_of_notebook
from jobs.reporting.progress import (
    SECONDS_BETWEEN_LINES,
    Advance,
    Progress,
    bytes_of_a_line,
)
from jobs.units import duration, size
from outputs import Verdict, VerificationState


class _Terminal(SafeConsole):
    """Standard output. A closed pipe ends the program with its own exit code, not with rich's."""

    def on_broken_pipe(self) -> None:
        """Raise the error, so that `jobs.run` sets the exit code."""
        raise


class Display:
    """Prints plan, progress and outcome of a job."""

    def __init__(self, console: Console | None = None, *, bar: bool = True) -> None:
        """Create a display.

        Args:
            console: The console; None takes standard output.
            bar: Whether a terminal or Jupyter shows a bar instead of a line every five seconds.
        """
        self.console = console or _Terminal(highlight=False, soft_wrap=True)
        self._bar = bar
        self._bytes_of_a_line = 0
        if not self.console.is_terminal:
            # rich assumes 80 columns there and would fold paths.
            self.console.width = WIDTH_WITHOUT_TERMINAL

    def plan(self, plan: Plan) -> None:
        """Show the plan."""
        self._bytes_of_a_line = bytes_of_a_line(plan)
        passes = [f"{count} in {mode} mode" for mode, count in plan.passes.items()]
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
                "passes": ", ".join(passes)
                + (" for each point" if plan.points is not None else ""),
                "memory": f"{size(plan.peak_bytes)} predicted of {size(plan.memory_budget)} "
                f"({plan.memory_reason})",
                "time": f"{duration(plan.seconds)} predicted" + (plan.busy and f"; {plan.busy}"),
                "disk": f"{size(plan.bytes_of_matrix)} to write, {size(plan.bytes_free)} free, "
                + (f"tiles of {plan.tile[0]} x {plan.tile[1]}" if plan.tile else "row after row"),
                "result": plan.path,
            },
        )

    def outcome(self, verdict: Verdict, facts: dict[str, str], path: str) -> None:
        """Show a finished job, its verdict first; the last line is the path of the result."""
        style = verdict.state.style
        is_verified = verdict.state is VerificationState.VERIFIED
        title = "done" if is_verified else f"done, {verdict.state.value}"
        grid = _grid({verdict.state.value: verdict.reason, **facts}, first=style)
        if self.console.is_terminal:
            card = Panel(grid, title=title, box=box.ROUNDED, expand=False, border_style=style)
            self.console.print(card)
        else:
            self.console.print(Group(title, grid))
        self.say(path)

    def already_finished(self, verdict: Verdict, shape: str, path: str, identity: str) -> None:
        """Show that the job was finished before, its verdict, and what makes it the same job.

        The last line is the path of the result.
        """
        self.console.print(Text(str(verdict), verdict.state.style))
        self.say(
            f"this job is finished already ({shape}): {identity}; overwrite=true computes it again"
        )
        self.say(path)

    def warn(self, text: str) -> None:
        """Print a line that no user should miss."""
        self.console.print(Text(text, VerificationState.CONTRADICTED.style))

    def say(self, text: str) -> None:
        """Print a line without interpreting markup."""
        self.console.print(text, markup=False)

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Advance]:
        """Show the progress while the body runs: a bar in a terminal and in Jupyter, or lines.

        Args:
            total: The number of rows or columns to compute.
            unit: ``rows`` or ``columns``.

        Yields:
            A function to call with the number of rows or columns computed since its last call.
        """
        now = Progress(total, unit, self._bytes_of_a_line)
        if self._bar and self.console.is_jupyter:
            yield bar_of_notebook(now)
            return
        if not (self._bar and self.console.is_terminal):
            yield now.every(SECONDS_BETWEEN_LINES, lambda now: self.say(f"  {now}"))
            return
        columns = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[rest]}"),
        )
        with rich_progress.Progress(*columns, console=self.console) as bar:
            task = bar.add_task(unit, total=total, rest="")

            def advance(lines: int) -> None:
                now.count(lines)
                bar.update(task, advance=lines, rest=now.rest())

            yield advance

    def _table(self, title: str, facts: dict[str, str]) -> None:
        self.console.print(Group(Text(title), _grid(facts)))


def _grid(facts: dict[str, str], *, first: str = "") -> Table:
    """Return a table of names and values, the first of them in a style of its own."""
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for number, (name, value) in enumerate(facts.items()):
        style = first if number == 0 else ""
        table.add_row(Text(f"  {name}", style), Text(value, style))
    return table


def _already_done(plan: Plan) -> str:
    done = plan.lines - plan.missing
    return f"; {done} of {plan.lines} {plan.axis} are done already" if done else ""
