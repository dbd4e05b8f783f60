"""``python -m outputs.plot FILE``: a picture of a result."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from outputs._errors import ResultError
from outputs._format.description import PRODUCTS
from outputs._optional import load
from outputs._plotting.matrix_statistics import Survey, survey
from outputs._plotting.spectrum import Spectrum, spectrum
from outputs._reading.result import Result, open_result
from outputs._reading.sparse_result import SparseResult, is_sparse_result, open_sparse_result
from outputs._storage.files import scratch_path

_VALUES = 20
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Those of the command line where None.

    Returns:
        The exit code: 0, 1 after one sentence on stderr, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        path = Path(options.file)
        target = Path(options.output or path.with_suffix(".png")).absolute()
        if is_sparse_result(path):
            with open_sparse_result(path) as sparse:
                plot_pattern(sparse, target)
        else:
            with open_result(path) as result:
                plot(result, target, values=options.values)
    except ResultError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{target}: {error.strerror or error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    print(target)
    return 0


def plot(result: Result, target: Path, *, values: int = _VALUES) -> None:
    """Draws magnitudes, norms and spectrum of a complete result into a PNG.

    The picture replaces what stands at ``target`` in one step. The matrix is read in pieces.

    Args:
        result: A complete result.
        target: Where the picture will stand.
        values: Eigenvalues or singular values of a matrix too large for all; 0 for no spectrum.

    Raises:
        MissingDependencyError: If Matplotlib, or SciPy for a large matrix, is not installed.
        ResultError: If the result is incomplete or damaged.
        OSError: If the picture cannot be written.
    """
    result.require_one_point("outputs.plot")
    load("matplotlib", "plot", "outputs.plot")
    from outputs._plotting import figures as _drawing

    seen = _survey_with_progress(result)
    _save(_drawing.draw(result, seen, _spectrum(result, seen, values)), target)


def plot_pattern(result: SparseResult, target: Path) -> None:
    """Draws where a sparse result has entries into a PNG, which replaces what stands there.

    Args:
        result: A sparse result.
        target: Where the picture will stand.

    Raises:
        MissingDependencyError: If Matplotlib is not installed.
        ResultError: If the result is damaged.
        OSError: If the picture cannot be written.
    """
    load("matplotlib", "plot", "outputs.plot")
    from outputs._plotting import figures as _drawing

    _save(_drawing.draw_pattern(result), target)


def _save(figure: Any, target: Path) -> None:
    scratch = scratch_path(target)
    try:
        figure.savefig(scratch, format="png", dpi=130)
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def _spectrum(result: Result, seen: Survey, values: int) -> Spectrum | None:
    if values < 1 or result.operation in PRODUCTS or seen.nonfinite_entries:
        return None
    with Console(stderr=True).status("spectrum"):
        return spectrum(result, values)


def _survey_with_progress(result: Result) -> Survey:
    console = Console(stderr=True)
    rows, columns = result.matrix_shape
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("reading", total=rows * columns * result.dtype.itemsize)
        return survey(result, advance=lambda count: progress.advance(task, count))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m outputs.plot",
        description="Draw a result: magnitudes, row and column norms, spectrum.",
    )
    parser.add_argument("file", type=Path, help="a finished result")
    parser.add_argument(
        "-o", "--output", metavar="PNG", help="the picture; beside the result by default"
    )
    parser.add_argument(
        "--values",
        type=int,
        default=_VALUES,
        metavar="N",
        help="eigenvalues or singular values of a matrix too large for all of them "
        "(default %(default)s; each costs several passes over the file); 0 for no spectrum",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
