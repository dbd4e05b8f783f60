"""``python -m outputs.export FILE --to FORMAT``: a result in the format of another program."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from outputs._errors import ResultError, ResultExistsError
from outputs._exports import FORMATS, Advance, Format
from outputs._reading.result import Result, open_result
from outputs._storage.files import publish, scratch_path, seal

_INTERRUPTED = 130
_ATTEMPTS, _PAUSE = 20, 0.1


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Those of the command line where None.

    Returns:
        The exit code: 0, 1 after one sentence on stderr, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    form = FORMATS[options.to]
    try:
        with open_result(options.file) as result:
            target = Path(options.output or result.path.with_suffix(form.suffix)).absolute()
            _export_with_progress(result, form, target, force=options.force)
    except (ResultError, OSError) as error:
        print(_sentence(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    print(target)
    return 0


def export(
    result: Result,
    form: Format,
    target: Path,
    *,
    force: bool = False,
    advance: Advance = lambda count: None,
) -> None:
    """Writes a complete result in another format, in pieces, and gives it its name at the end.

    A file is replaced in one step. A directory (zarr) cannot be: the old one is moved aside
    while the new one takes its name.

    Args:
        result: A complete result.
        form: The format.
        target: Where the export will stand.
        force: Whether what stands there may be replaced.
        advance: Told the bytes of the matrix as they are written.

    Raises:
        ResultExistsError: If something stands at ``target`` and ``force`` is not set.
        MissingDependencyError: If a library is not installed.
        ResultError: If the result is not complete, damaged, or itself the target.
        OSError: If the disk fails.
    """
    result.require_one_point("outputs.export")
    write = form.writer()
    if target.exists():
        _require_replaceable(result, target, force)
    scratch = scratch_path(target)
    try:
        write(result, scratch, advance)
        _publish(scratch, target, force)
    finally:
        _remove(scratch)


def _require_replaceable(result: Result, target: Path, force: bool) -> None:
    if target.samefile(result.path):
        raise ResultError(f"{target} is the result itself; name another file with -o.")
    if not force:
        raise ResultExistsError(f"{target} already exists; --force replaces it.")


def _publish(scratch: Path, target: Path, force: bool) -> None:
    if scratch.is_file():
        seal(scratch)
        if force and not target.is_dir():
            os.replace(scratch, target)
        else:
            publish(scratch, target)
        return
    if not target.exists():
        os.rename(scratch, target)
        return
    if not force:
        raise ResultExistsError(f"{target} already exists; --force replaces it.")
    aside = scratch_path(target)
    os.rename(target, aside)
    os.rename(scratch, target)
    _remove(aside)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # After an interruption zarr's thread still writes the chunk at hand, and makes the directory
    # for it again.
    for _ in range(_ATTEMPTS):
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(_PAUSE)
        if not path.exists():
            return


def _export_with_progress(result: Result, form: Format, target: Path, *, force: bool) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        rows, across = result.matrix_shape
        task = progress.add_task(target.name, total=rows * across * result.dtype.itemsize)
        export(
            result,
            form,
            target,
            force=force,
            advance=lambda count: progress.advance(task, count),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m outputs.export",
        description="Write a result in the format of another program, never all of it in memory.",
    )
    parser.add_argument("file", type=Path, help="a finished result")
    parser.add_argument("--to", required=True, choices=FORMATS, help="the format")
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="where to write; beside the result by default"
    )
    parser.add_argument("--force", action="store_true", help="replace what stands there")
    return parser


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'The export'}: {error.strerror}."
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
