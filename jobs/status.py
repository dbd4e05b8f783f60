"""``python -m jobs.status DIR``: the progress of the jobs below a directory, live."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jobs.errors import EXIT_FAILED, EXIT_INTERRUPTED
from jobs.printing import print_line
from jobs.records.status_file import status_files
from jobs.reporting.console import command_console
from jobs.reporting.status_table import print_statuses, watch


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The arguments; None takes those of the command line.

    Returns:
        The exit code: 0, 1 if there is no job, 130 if interrupted.
    """
    options = _parser().parse_args(arguments)
    directory: Path = options.directory
    console = command_console()
    if not status_files(directory):
        print_line(f"there are no jobs in {directory.absolute()}")
        return EXIT_FAILED
    if options.once or not console.is_terminal:
        print_statuses(directory)
        return 0
    try:
        watch(directory, console)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.status",
        description="Show the progress of the jobs below a directory, until all have ended.",
    )
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        default=Path("runs"),
        help="the directory of the runs (default: runs)",
    )
    parser.add_argument("--once", action="store_true", help="print once and exit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
