"""``python -m outputs.export FILE [--to FORMAT]``: convert a result to another program's format."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from rich.table import Table
from rich.text import Text

from outputs._commands import (
    command_parser,
    output_console,
    print_line,
    progress_bar,
    run_command,
)
from outputs._errors import ResultError, ResultExistsError
from outputs._exports.formats import FORMATS, Format
from outputs._exports.structures import UNITS, Structure
from outputs._reading.any_result import AnyResult, opened
from outputs._reading.sparse_result import SparseResult
from outputs._scanning.sequential import Advance
from outputs._storage.files import publish, scratch_file, seal
from outputs._writing.directories import scratch_for

_WIDTH_WITHOUT_TERMINAL = 160
_ATTEMPTS, _ABSENT, _PAUSE = 20, 3, 0.1


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line's arguments; None for those of the process.

    Returns:
        The exit code: 0, 1 after one sentence on stderr, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    return run_command(lambda: _export_and_print(options), subject="The export")


def _export_and_print(options: argparse.Namespace) -> int:
    with opened(options.file) as result:
        if options.to is None:
            return _list_formats(result)
        form = FORMATS[options.to]
        target = Path(options.output or result.path.with_suffix(form.suffix)).absolute()
        structure = Structure(options.atoms, options.units)
        with progress_bar(target.name, _size(result)) as advance:
            export(result, form, target, force=options.force, advance=advance, structure=structure)
        if form.atoms is not None and not isinstance(result, SparseResult):
            print_line(structure.assumption(result), error=True)
    print_line(target)
    return 0


def _size(result: AnyResult) -> int:
    if isinstance(result, SparseResult):
        return result.entries * result.dtype.itemsize
    rows, columns = result.matrix_shape
    return rows * columns * result.dtype.itemsize


def _list_formats(result: AnyResult) -> int:
    """Print which formats fit a result, and why others do not."""
    table = Table(title=f"Exports of {result.path.name}", title_justify="left")
    for heading in ("--to", "format", "fits"):
        table.add_column(heading, overflow="fold")
    for form in FORMATS.values():
        fits = Text("yes", "green")
        try:
            form.require_fitting(result)
        except ResultError as error:
            fits = Text(f"no: {error}")
        table.add_row(form.name, Text(form.about), fits)
    output_console(_WIDTH_WITHOUT_TERMINAL).print(table)
    return 0


def export(
    result: AnyResult,
    form: Format,
    target: Path,
    *,
    force: bool = False,
    advance: Advance = lambda count: None,
    structure: Structure | None = None,
) -> None:
    """Write a complete result in another format, in pieces, under a scratch name until complete.

    A file is replaced atomically. A directory (zarr) cannot be: the old one is moved aside
    while the new one takes its name.

    Args:
        result: A complete result.
        form: The format.
        target: Path of the export.
        force: Whether an existing file or directory at ``target`` may be replaced.
        advance: Called with the number of bytes of each piece of the matrix that is written.
        structure: The atoms and units, for formats that need them.

    Raises:
        ResultExistsError: If ``target`` exists and ``force`` is not set.
        MissingDependencyError: If a library is not installed.
        ResultError: If the result is incomplete, damaged, or itself the target, or does not fit.
        OSError: If the disk fails.
    """
    write = form.writer(result, structure)
    if target.exists():
        _require_replaceable(result, target, force)
    result.require_intact()
    with scratch_for(target) as scratch:
        try:
            write(result, scratch, advance)
            _publish(scratch, target, force)
        finally:
            _remove(scratch)


def _require_replaceable(result: AnyResult, target: Path, force: bool) -> None:
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
    with scratch_file(target) as aside:
        os.rename(target, aside)
        os.rename(scratch, target)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # After an interruption zarr's thread still writes its current chunk, and creates the directory
    # for it again, on a busy machine some time later.
    absent = 0
    for _ in range(_ATTEMPTS):
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(_PAUSE)
        absent = 0 if path.exists() else absent + 1
        if absent == _ABSENT:
            return


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "export",
        "Write a result in the format of another program, never all of it in memory.",
    )
    parser.add_argument("file", type=Path, help="a finished result")
    parser.add_argument(
        "--to", choices=FORMATS, help="the format; without it, those that fit are listed"
    )
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="where to write; by default beside the result"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace an existing file or directory"
    )
    parser.add_argument(
        "--atoms", type=Path, metavar="FILE", help="species and cell, in a file that ASE reads"
    )
    parser.add_argument(
        "--units",
        choices=UNITS,
        default=next(iter(UNITS)),
        help="those of a Hessian by positions; exports for atoms are in %(default)s",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
