"""``python -m jobs.status DIR``: how far the jobs below a directory are, live."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from jobs.records.status_file import read_statuses
from jobs.reporting.progress import WIDTH_WITHOUT_TERMINAL
from jobs.reporting.status_table import status_table, watch

_EXIT_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those of the command line where None.

    Returns:
        The exit code: 0, 1 where there is no job, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    directory: Path = options.directory
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    statuses = read_statuses(directory)
    if not statuses:
        print(f"there are no jobs in {directory.absolute()}", file=sys.stderr)
        return 1
    if options.once or not console.is_terminal:
        console.print(status_table(statuses, directory))
        return 0
    try:
        watch(directory, console)
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.status",
        description="Show how far the jobs below a directory are, until all have ended.",
    )
    parser.add_argument(
        "directory", type=Path, nargs="?", default=Path("runs"), help="where runs are (runs)"
    )
    parser.add_argument("--once", action="store_true", help="print once and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
