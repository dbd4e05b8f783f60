"""``python -m outputs.plot FILE``: draw a picture of a result."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from outputs._commands import SafeConsole, command_parser, print_line, progress_bar, run_command
from outputs._errors import ResultError
from outputs._optional import load
from outputs._reading.presentation.drawing import SPECTRUM_VALUES, drawn_spectrum, sparse_figure
from outputs._reading.presentation.matrix_statistics import Survey, survey
from outputs._reading.presentation.spectrum import Spectrum
from outputs._reading.result import Result, open_result
from outputs._reading.sparse_result import SparseResult, is_sparse_result, open_sparse_result
from outputs._writing.directories import scratch_for


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line's arguments; None for those of the process.

    Returns:
        The exit code: 0, 1 after one sentence on stderr, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    return run_command(lambda: _plot_and_print(options))


def _plot_and_print(options: argparse.Namespace) -> int:
    path: Path = options.file
    target = Path(options.output or path.with_suffix(".png")).absolute()
    try:
        if is_sparse_result(path):
            with open_sparse_result(path) as sparse:
                plot_pattern(sparse, target)
        else:
            with open_result(path) as result:
                plot(result, target, values=options.values)
    except OSError as error:
        # The error names the scratch file, which the user did not choose.
        raise ResultError(f"{target}: {error.strerror or error}.") from error
    print_line(target)
    return 0


def plot(result: Result, target: Path, *, values: int = SPECTRUM_VALUES) -> None:
    """Draw magnitudes, norms and spectrum of a complete result into a PNG.

    The picture replaces an existing file at ``target`` atomically. The matrix is read in pieces.

    Args:
        result: A complete result.
        target: Path of the picture.
        values: Number of eigenvalues or singular values to compute for a matrix too large to
            compute all of them; 0 for no spectrum.

    Raises:
        MissingDependencyError: If Matplotlib, or SciPy for a large matrix, is not installed.
        ResultError: If the result is incomplete or damaged.
        OSError: If the picture cannot be written.
    """
    result.require_one_point("outputs.plot")
    result.require_all_entries("outputs.plot")
    load("matplotlib", "plot", "outputs.plot")
    from outputs._reading.presentation.figures import draw

    seen = _survey_with_progress(result)
    _save(draw(result, seen, _spectrum(result, seen, values)), target)


def plot_pattern(result: SparseResult, target: Path) -> None:
    """Draw the pattern of a sparse result into a PNG, replacing an existing file atomically.

    Args:
        result: A sparse result.
        target: Path of the picture.

    Raises:
        MissingDependencyError: If Matplotlib is not installed.
        ResultError: If the result is damaged.
        OSError: If the picture cannot be written.
    """
    _save(sparse_figure(result, "outputs.plot"), target)


def _save(figure: Any, target: Path) -> None:
    with scratch_for(target) as scratch:
        figure.savefig(scratch, format="png", dpi=130)
        os.replace(scratch, target)


def _spectrum(result: Result, seen: Survey, values: int) -> Spectrum | None:
    with SafeConsole(stderr=True).status("spectrum"):
        return drawn_spectrum(result, seen, values)


def _survey_with_progress(result: Result) -> Survey:
    rows, columns = result.matrix_shape
    with progress_bar("reading", rows * columns * result.dtype.itemsize) as advance:
        return survey(result, advance=advance)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("plot", "Draw a result: magnitudes, row and column norms, spectrum.")
    parser.add_argument("file", type=Path, help="a finished result")
    parser.add_argument(
        "-o", "--output", metavar="PNG", help="the picture; by default beside the result"
    )
    parser.add_argument(
        "--values",
        type=int,
        default=SPECTRUM_VALUES,
        metavar="N",
        help="eigenvalues or singular values of a matrix too large for all of them "
        "(default %(default)s; each costs several passes over the file); 0 for no spectrum",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
