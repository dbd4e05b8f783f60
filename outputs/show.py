"""``python -m outputs.show FILE``: prints what a result file holds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from outputs._description import TensorSpec
from outputs._errors import ResultError
from outputs._reader import Result

_WIDTH_WITHOUT_TERMINAL = 120
_LONGEST_LIST = 8


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Those of the command line where None.

    Returns:
        The exit code: 0, or 1 after one sentence on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="python -m outputs.show", description="Print what a result file holds."
    )
    parser.add_argument("file", type=Path, help="a result, finished or unfinished (.part)")
    path: Path = parser.parse_args(arguments).file
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    try:
        with Result(path) as result:
            for table in _tables(result):
                console.print(table)
    except ResultError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _tables(result: Result) -> Iterable[Table]:
    yield _pairs("Result", _summary(result))
    yield _tensors("Rows", result.rows)
    yield _tensors("Columns", result.columns)
    yield _pairs("Provenance", result.provenance)
    execution = dict(result.execution)
    verification = execution.pop("verification", {})
    if execution:
        yield _pairs("Execution", _flat(execution))
    if verification:
        yield _pairs("Verification", _flat({"verification": verification}, keep_name=False))


def _summary(result: Result) -> dict[str, Any]:
    rows, columns = result.shape
    layout = "contiguous" if result.tile is None else "tiles of {} x {}".format(*result.tile)
    finished = result.complete and bool(result.execution)
    return {
        "file": result.path,
        "status": "complete" if finished else f"unfinished: {result.progress}",
        "operation": result.operation,
        "function": result.function,
        "strategy": result.strategy,
        "shape": f"{rows} x {columns} (rows x columns)",
        "dtype": result.dtype,
        "size": f"{_bytes(rows * columns * result.dtype.itemsize)}, "
        f"{_bytes(result.stored_bytes)} stored ({layout}, compression {result.compression})",
        "blocks": f"{result.blocks} blocks of {result.axis}",
        "point": _arrays(result.points),
        "value": _arrays(result.value),
        "vectors": _arrays(result.vectors),
        "fingerprint": result.fingerprint,
    }


def _pairs(title: str, values: Mapping[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        # As Text, because a name in square brackets is no markup.
        table.add_row(Text(name), Text(str(value)))
    return table


def _tensors(title: str, tensors: tuple[TensorSpec, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("name", "shape", "range", "dtype"):
        table.add_column(heading, overflow="fold")
    start = 0
    for tensor in tensors:
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
    return ", ".join(f"{name} {a.shape} {a.dtype}" for name, a in arrays.items()) or "none"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


if __name__ == "__main__":
    sys.exit(main())
