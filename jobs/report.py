"""``python -m jobs.report DIR``: jobs side by side, and whether their results agree."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.reporting.agreement import Agreement, compare_strategies
from jobs.reporting.display import WIDTH_WITHOUT_TERMINAL, duration, size
from jobs.reporting.summary import JobSummary, summarise
from outputs import ResultError

_EXIT_INTERRUPTED = 130
_COLUMNS = (
    *("job", "state", "time", "throughput", "peak memory", "chunk", "fallbacks"),
    *("verification", "message"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line where None.

    Returns:
        The exit code: 0, 1 where there is no job, results disagree or a file cannot be written,
        130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    directory: Path = options.directory
    try:
        return _report(directory, options)
    except (ResultError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


def _report(directory: Path, options: argparse.Namespace) -> int:
    summaries = summarise(directory)
    if not summaries:
        print(f"there are no jobs in {directory.absolute()}", file=sys.stderr)
        return 1
    agreements = [] if options.no_comparison else compare_strategies(directory)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    console.print(job_table(summaries))
    if agreements:
        console.print(agreement_table(agreements))
    if options.csv is not None:
        write_csv(options.csv, summaries)
        console.print(str(options.csv.absolute()), markup=False, soft_wrap=True)
    if options.html is not None:
        from jobs.reporting.html_page import write_page

        write_page(options.html, directory, summaries, agreements)
        console.print(str(options.html.absolute()), markup=False, soft_wrap=True)
    return 0 if all(one.agrees for one in agreements) else 1


def cells_of(one: JobSummary) -> tuple[str, ...]:
    """What a table shows of a job, under the headings `_COLUMNS`."""
    rate = "" if one.entries_per_second is None else f"{one.entries_per_second:.3g} entries/s"
    verified = one.verification
    if one.error is not None and one.tolerance is not None:
        verified += f" {one.error:.1e} (allowed {one.tolerance:.1e})"
    return (
        one.job,
        one.state,
        "" if one.seconds is None else duration(one.seconds),
        rate,
        "" if one.peak_memory_bytes is None else size(one.peak_memory_bytes),
        "" if one.chunk_size is None else str(one.chunk_size),
        str(len(one.fallbacks) or ""),
        verified,
        one.message or "; ".join(one.fallbacks),
    )


def headings() -> tuple[str, ...]:
    """The headings of `cells_of`."""
    return _COLUMNS


def agreement_cells(one: Agreement) -> tuple[str, ...]:
    """What a table shows of two results."""
    verdict = one.problem or ("agree" if one.agrees else "DISAGREE")
    place = "" if one.place is None else f"row {one.place[0]}, column {one.place[1]}"
    return (one.derivative, one.reference, one.other, f"{one.relative:.1e}", place, verdict)


AGREEMENT_HEADINGS = (
    *("derivative", "reference", "compared", "largest relative difference", "at", "verdict"),
)


def job_table(summaries: Sequence[JobSummary]) -> Table:
    """One line a job."""
    table = Table(title=f"{len(summaries)} jobs", title_justify="left")
    for heading in _COLUMNS:
        table.add_column(heading, overflow="fold")
    for one in summaries:
        table.add_row(*map(Text, cells_of(one)))
    return table


def agreement_table(agreements: Sequence[Agreement]) -> Table:
    """One line for each two results of the same derivative."""
    table = Table(title="agreement between strategies", title_justify="left")
    for heading in AGREEMENT_HEADINGS:
        table.add_column(heading, overflow="fold")
    for one in agreements:
        table.add_row(*map(Text, agreement_cells(one)))
    return table


def write_csv(path: Path, summaries: Sequence[JobSummary]) -> None:
    """Write all figures with full digits, one line a job."""
    names = [field.name for field in fields(JobSummary)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for one in summaries:
            values = (getattr(one, name) for name in names)
            writer.writerow("; ".join(v) if isinstance(v, tuple) else v for v in values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.report",
        description="Show the jobs below a directory side by side, and compare the results of the "
        "same function and point, matrix against matrix.",
    )
    parser.add_argument(
        "directory", type=Path, nargs="?", default=Path("runs"), help="where runs are (runs)"
    )
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write the figures")
    parser.add_argument("--html", type=Path, metavar="PATH", help="write one page with plots")
    parser.add_argument(
        "--no-comparison", action="store_true", help="leave the matrices alone: quick"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
