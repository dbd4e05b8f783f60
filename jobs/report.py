"""``python -m jobs.report DIR``: compare jobs, and check whether their results agree."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from jobs.errors import EXIT_FAILED, EXIT_INTERRUPTED
from jobs.printing import print_line
from jobs.reporting.agreement import compare_strategies
from jobs.reporting.console import command_console
from jobs.reporting.summary import summarise
from jobs.reporting.tables import agreement_table, job_table, write_csv
from outputs import ResultError


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The arguments; None takes those of the command line.

    Returns:
        The exit code: 0, 1 if there is no job, results disagree or a file cannot be written, 130
        if interrupted.
    """
    options = _parser().parse_args(arguments)
    directory: Path = options.directory
    try:
        return _report(directory, options)
    except (ResultError, OSError) as error:
        print_line(f"error: {getattr(error, 'strerror', None) or error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _report(directory: Path, options: argparse.Namespace) -> int:
    summaries = summarise(directory)
    if not summaries:
        print_line(f"there are no jobs in {directory.absolute()}")
        return EXIT_FAILED
    agreements = [] if options.no_comparison else compare_strategies(directory)
    console = command_console()
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
    return 0 if all(one.agrees for one in agreements) else EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.report",
        description="Show the jobs below a directory side by side, and compare the results of the "
        "same function and point, matrix against matrix.",
    )
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        default=Path("runs"),
        help="the directory of the runs (default: runs)",
    )
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write all figures as CSV")
    parser.add_argument("--html", type=Path, metavar="PATH", help="write one HTML page with plots")
    parser.add_argument(
        "--no-comparison", action="store_true", help="skip the comparison of matrices"
    )
    return parser


class _Callable(ModuleType):
    """This module, which importing puts in the place of the function `jobs.report`."""

    def __call__(self, runs: str | os.PathLike[str] = "runs") -> Any:
        """Do what `jobs.report` does."""
        from jobs.calls.runs import report

        return report(runs)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main())
