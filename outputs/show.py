"""``python -m outputs.show FILE``: print the contents of a result file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from outputs._commands import command_parser, output_console, pair_table, run_command
from outputs._format.axes import TensorSpec
from outputs._reading.presentation.facts import (
    TENSOR_HEADINGS,
    dense_facts,
    records,
    sparse_facts,
    tensor_rows,
)
from outputs._reading.presentation.sparsity_pattern import braille_picture
from outputs._reading.result import Result
from outputs._reading.sparse_result import SparseResult, is_sparse_result

_WIDTH_WITHOUT_TERMINAL = 120


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line's arguments; None for those of the process.

    Returns:
        The exit code: 0, 1 after one sentence on stderr, 130 when interrupted.
    """
    parser = command_parser("show", "Print the contents of a result file.")
    parser.add_argument("file", type=Path, help="a result, finished or unfinished (.part)")
    parser.add_argument("--all", action="store_true", help="show every tensor of a long table")
    options = parser.parse_args(arguments)
    return run_command(lambda: _show(options.file, shorten=not options.all))


def _show(path: Path, *, shorten: bool) -> int:
    console = output_console(_WIDTH_WITHOUT_TERMINAL)
    if is_sparse_result(path):
        with SparseResult(path) as sparse:
            console.print(_summary(sparse, sparse_facts(sparse)))
            console.print(Text("Pattern", style="italic"))
            console.print(Text(braille_picture(*sparse.pattern, sparse.shape)))
            for table in _common_tables(sparse, shorten):
                console.print(table)
        return 0
    with Result(path) as result:
        console.print(_summary(result, dense_facts(result)))
        for table in _common_tables(result, shorten):
            console.print(table)
    return 0


def _summary(result: Result | SparseResult, facts: Mapping[str, str]) -> Table:
    """Return the facts, that of the verification in the colour of its state."""
    return _pairs("Result", facts, {"verification": result.verdict.state.style})


def _common_tables(result: Result | SparseResult, shorten: bool) -> Iterable[Table]:
    yield _tensors("Rows", result.rows, shorten)
    yield _tensors("Columns", result.columns, shorten)
    for title, facts in records(result):
        yield _pairs(title, facts)


def _pairs(title: str, values: Mapping[str, str], styles: Mapping[str, str] | None = None) -> Table:
    table = pair_table(title)
    for name, value in values.items():
        # Text, because rich would parse a name in square brackets as markup.
        table.add_row(Text(name), Text(value, (styles or {}).get(name, "")))
    return table


def _tensors(title: str, tensors: tuple[TensorSpec, ...], shorten: bool) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in TENSOR_HEADINGS:
        table.add_column(heading, overflow="fold")
    for cells in tensor_rows(tensors, shorten=shorten):
        hint = ", see --all" if len(cells) == 1 else ""
        table.add_row(*(Text(cell + hint) for cell in cells))
    return table


if __name__ == "__main__":
    sys.exit(main())
