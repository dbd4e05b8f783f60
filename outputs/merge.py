"""``python -m outputs.merge DIR_OR_FILES -o result.h5``: merge the shards of a matrix."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from outputs._commands import command_parser, print_line, progress_bar, run_command
from outputs._sharding.merging import merge_shards


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line's arguments; None for those of the process.

    Returns:
        The exit code: 0, 1 after one sentence on stderr, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    return run_command(
        lambda: _merge_and_print(options),
        subject="The merged result",
        interrupted="interrupted; the same command resumes from there",
    )


def _merge_and_print(options: argparse.Namespace) -> int:
    target: Path = options.output.absolute()
    with progress_bar(target.name, None) as advance:
        is_new = merge_shards(options.shards, target, virtual=options.virtual, advance=advance)
    if not is_new:
        print("these shards are merged already")
    print_line(target)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "merge",
        "Merge the shards of a matrix into one verified result. The shards are left as they are; "
        "an interrupted copy is resumed.",
    )
    parser.add_argument(
        "shards", nargs="+", type=Path, metavar="DIR_OR_FILE", help="shards, or where they are"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="PATH", help="where to write"
    )
    parser.add_argument(
        "--virtual",
        action="store_true",
        help="leave the matrix in the shards and refer to them, by their paths from PATH",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
