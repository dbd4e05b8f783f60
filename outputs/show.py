"""``python -m outputs.show FILE``: print the contents of a result file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from outputs._commands import command_parser, output_console, pair_table, run_command
from outputs._format.axes import TensorSpec
from outputs._plotting.sparsity_pattern import braille_picture
from outputs._reading.result import Result
from outputs._reading.sparse_result import SparseResult, is_sparse_result

_WIDTH_WITHOUT_TERMINAL = 120
_LONGEST_LIST = 8
_FIRST, _LAST = 10, 2  # the rows of a long table that are shown


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
            console.print(_pairs("Result", _sparse_summary(sparse)))
            console.print(Text("Pattern", style="italic"))
            console.print(Text(braille_picture(*sparse.pattern, sparse.shape)))
            for table in _common_tables(sparse, shorten):
                console.print(table)
        return 0
    with Result(path) as result:
        console.print(_pairs("Result", _summary(result)))
        for table in _common_tables(result, shorten):
            console.print(table)
    return 0


def _common_tables(result: Result | SparseResult, shorten: bool) -> Iterable[Table]:
    yield _tensors("Rows", result.rows, shorten)
    yield _tensors("Columns", result.columns, shorten)
    yield _pairs("Provenance", result.provenance)
    execution = dict(result.execution)
    verification = execution.pop("verification", {})
    if execution:
        yield _pairs("Execution", _flat(execution))
    if verification:
        yield _pairs("Verification", _flat({"verification": verification}, keep_name=False))


def _verification(result: Result | SparseResult) -> Text:
    """Return state and reason, in the colour of the state."""
    verdict = result.verdict
    return Text(str(verdict), verdict.state.style)


def _sparse_summary(result: SparseResult) -> dict[str, Any]:
    rows, columns = result.shape
    share = result.entries / max(1, rows * columns)
    colours = {name: int(array.max(initial=-1)) + 1 for name, array in result.colours.items()}
    shown = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in colours.items())
    return {
        "verification": _verification(result),
        "file": result.path,
        "operation": result.operation,
        "function": result.function,
        "strategy": result.strategy,
        "shape": f"{rows:,} x {columns:,} (rows x columns)",
        "entries": f"{result.entries:,}, {share:.3g} of all, compressed rows (CSR)",
        "colouring": f"{result.kind}: {shown or 'no colours'}",
        "dtype": result.dtype,
        "size": f"{_bytes(result.stored_bytes)} stored",
        "made": _made(result.provenance),
        "point": _arrays(result.points),
        "value": _arrays(result.value),
        "fingerprint": result.fingerprint,
    }


def _summary(result: Result) -> dict[str, Any]:
    rows, columns = result.matrix_shape
    many = "" if result.point_count is None else f"{result.point_count:,} points of "
    layout = "contiguous" if result.tile is None else "tiles of {} x {}".format(*result.tile)
    finished = result.complete and bool(result.execution)
    return {
        "verification": _verification(result),
        "file": result.path,
        "status": "complete" if finished else f"unfinished: {result.progress}",
        "operation": result.operation,
        "function": result.function,
        "strategy": result.strategy,
        "shape": f"{many}{result.shape[-2]:,} x {columns:,} (rows x columns)",
        "dtype": result.dtype,
        "size": f"{_bytes(rows * columns * result.dtype.itemsize)}, "
        f"{_bytes(result.stored_bytes)} stored ({layout}, compression {result.compression})",
        "blocks": f"{result.blocks} blocks of {result.axis}",
        "made": _made(result.provenance),
        "time": _time(result),
        "point": _arrays(result.points),
        "value": _arrays(result.value),
        "vectors": _arrays(result.vectors),
        "fingerprint": result.fingerprint,
    }


def _pairs(title: str, values: Mapping[str, Any]) -> Table:
    table = pair_table(title)
    for name, value in values.items():
        # Text, because rich would parse a name in square brackets as markup.
        table.add_row(Text(name), value if isinstance(value, Text) else Text(str(value)))
    return table


def _made(provenance: Mapping[str, Any]) -> str:
    """Return the time, place and versions of the computation as one line."""
    versions = [f"{n} {provenance[n]}" for n in ("autodiff_jobs", "torch") if n in provenance]
    place = [f"on {provenance[name]}" for name in ("device", "host") if name in provenance]
    return ", ".join([str(provenance.get("created", "at an unknown time")), *place, *versions])


def _time(result: Result) -> str:
    """Return the duration and rate of the computation as far as they are recorded."""
    record = result.execution
    seconds, lines = record.get("seconds"), record.get("lines_computed")
    if not isinstance(seconds, int | float) or not seconds > 0:
        return "unknown"
    shown = f"{seconds:.3g} s"
    if not isinstance(lines, int) or 0 in result.matrix_shape:
        return shown
    across = result.axis.across(result.matrix_shape)
    rate = lines / seconds
    entries = _si(rate * across, "").rstrip() + " entries/s"
    volume = _si(rate * across * result.dtype.itemsize, "B/s")
    resumed = record.get("lines_resumed")
    rest = f"; {resumed:,} {result.axis} are of earlier runs" if resumed else ""
    return f"{shown} for {lines:,} {result.axis}: {entries}, {volume}{rest}"


def _tensors(title: str, tensors: tuple[TensorSpec, ...], shorten: bool) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("name", "shape", "range", "dtype"):
        table.add_column(heading, overflow="fold")
    start = 0
    hidden = range(_FIRST, len(tensors) - _LAST) if shorten else range(0)
    for index, tensor in enumerate(tensors):
        if len(hidden) > 1 and index in hidden:
            if index == hidden.start:
                table.add_row(f"… {len(hidden):,} more, see --all")
            start += tensor.size
            continue
        cells = (tensor.name, tensor.shape, f"{start}:{start + tensor.size}", tensor.dtype)
        table.add_row(*(Text(str(cell)) for cell in cells))
        start += tensor.size
    return table


def _flat(record: Mapping[str, Any], prefix: str = "", keep_name: bool = True) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in record.items():
        label = f"{prefix}{name}" if keep_name else ""
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{label}." if label else "")
        elif isinstance(value, list) and len(value) > _LONGEST_LIST:
            flat[label] = f"{len(value)} entries, the last {json.dumps(value[-1])}"
        else:
            flat[label] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _arrays(arrays: Mapping[str, Any]) -> str:
    shown = [f"{name} {a.shape} {a.dtype}" for name, a in arrays.items()]
    if len(shown) > _LONGEST_LIST:
        shown = [*shown[: _LONGEST_LIST - 1], f"… {len(shown) - _LONGEST_LIST + 1:,} more"]
    return ", ".join(shown) or "none"


def _bytes(count: float) -> str:
    return _si(count, "B")


def _si(count: float, unit: str) -> str:
    """Return a count of three to four digits with an SI prefix, such as 1.92 kB."""
    for prefix in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.4g} {prefix}{unit}"
        count /= 1000
    return f"{count:.4g} T{unit}"


if __name__ == "__main__":
    sys.exit(main())
