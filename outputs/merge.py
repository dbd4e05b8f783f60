"""``python -m outputs.merge DIR_OR_FILES -o result.h5``: one result of the shards of a matrix."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from outputs._errors import ResultError
from outputs._sharding.merging import merge_shards

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Those of the command line where None.

    Returns:
        The exit code: 0, 1 after one sentence on stderr, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    target: Path = options.output.absolute()
    try:
        is_new = _merge_with_progress(options.shards, target, virtual=options.virtual)
    except (ResultError, OSError) as error:
        print(_sentence(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from there", file=sys.stderr)
        return _INTERRUPTED
    if not is_new:
        print("these shards are merged already")
    print(target)
    return 0


def _merge_with_progress(shards: list[Path], target: Path, *, virtual: bool) -> bool:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(target.name, total=None)
        return merge_shards(
            shards,
            target,
            virtual=virtual,
            advance=lambda count: progress.advance(task, count),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m outputs.merge",
        description="Put the shards of a matrix together into one verified result. The shards are "
        "left as they are; an interrupted copy is gone on with.",
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


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'The merged result'}: {error.strerror}."
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
