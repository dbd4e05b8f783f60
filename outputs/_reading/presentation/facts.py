"""Say in words what a result holds, for a terminal and for a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from outputs._format.axes import TensorSpec
from outputs._format.description import BLOCKS, FULL
from outputs._format.names import Names
from outputs._reading.presentation.protocols import AnyResult, ShownResult, ShownSparseResult

_LONGEST_LIST = 8
_FIRST, _LAST = 10, 2  # the rows of a long table that are shown

TENSOR_HEADINGS = ("name", "shape", "range", "dtype")
"""The columns of `tensor_rows`."""


def dense_facts(result: ShownResult) -> dict[str, str]:
    """Return what a dense result is, by name, the state of verification first."""
    rows, columns = result.matrix_shape
    many = "" if result.point_count is None else f"{result.point_count:,} points of "
    shape = f"{many}{result.shape[-2]:,} x {columns:,} (rows x columns)"
    if result.structure == BLOCKS:
        blocks = f"{len(result.tensors_of_blocks):,} diagonal blocks of at most {columns:,} rows"
        shape = f"{blocks}, of {rows:,} x {rows:,} (rows x columns)"
    elif result.structure != FULL:
        shape = f"the {result.structure} of {rows:,} x {rows:,} (rows x columns)"
    elif result.is_ragged:
        shape = f"{many}different sizes, {rows:,} rows in all, at most {columns:,} columns"
    size = result.stored_bytes if result.is_ragged else rows * columns * result.dtype.itemsize
    layout = "contiguous" if result.tile is None else "tiles of {} x {}".format(*result.tile)
    finished = result.complete and bool(result.execution)
    return {
        "verification": str(result.verdict),
        "file": str(result.path),
        "status": "complete" if finished else f"unfinished: {result.progress}",
        "operation": result.operation,
        "function": result.function,
        "strategy": result.strategy,
        "shape": shape,
        **_selection(result),
        "dtype": str(result.dtype),
        "size": f"{_bytes(size)}, "
        f"{_bytes(result.stored_bytes)} stored ({layout}, compression {result.compression})",
        "blocks": f"{result.blocks} blocks of {result.axis}",
        "made": _made(result.provenance),
        "time": _time(result),
        "point": _arrays(result, Names.POINT),
        "value": _arrays(result, Names.VALUE),
        "vectors": str(result.drawn_vectors or _arrays(result, Names.VECTORS)),
        "fingerprint": result.fingerprint,
    }


def sparse_facts(result: ShownSparseResult) -> dict[str, str]:
    """Return what a sparse result is, by name, the state of verification first."""
    rows, columns = result.shape
    share = result.entries / max(1, rows * columns)
    colours = {name: int(array.max(initial=-1)) + 1 for name, array in result.colours.items()}
    shown = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in colours.items())
    return {
        "verification": str(result.verdict),
        "file": str(result.path),
        "operation": result.operation,
        "function": result.function,
        "strategy": result.strategy,
        "shape": f"{rows:,} x {columns:,} (rows x columns)",
        **_selection(result),
        "entries": f"{result.entries:,}, {share:.3g} of all, compressed rows (CSR)",
        "colouring": f"{result.kind}: {shown or 'no colours'}",
        "dtype": str(result.dtype),
        "size": f"{_bytes(result.stored_bytes)} stored",
        "made": _made(result.provenance),
        "point": _arrays(result, Names.POINT),
        "value": _arrays(result, Names.VALUE),
        "fingerprint": result.fingerprint,
    }


def _selection(result: AnyResult) -> dict[str, str]:
    return {} if result.selection is None else {"selection": str(result.selection)}


def records(result: AnyResult) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the records of a result, as title and facts by name; empty ones are left out."""
    yield "Provenance", {name: str(value) for name, value in result.provenance.items()}
    execution = dict(result.execution)
    verification = execution.pop("verification", {})
    if execution:
        yield "Execution", _flat(execution)
    if verification:
        yield "Verification", _flat({"verification": verification}, keep_name=False)


def tensor_rows(
    tensors: tuple[TensorSpec, ...], *, shorten: bool = True
) -> Iterable[tuple[str, ...]]:
    """Yield the tensors of an axis with their ranges, as texts under `TENSOR_HEADINGS`.

    Args:
        tensors: The tensors.
        shorten: Whether one row of a single text replaces those in the middle of a long table.
    """
    start = 0
    hidden = range(_FIRST, len(tensors) - _LAST) if shorten else range(0)
    for index, tensor in enumerate(tensors):
        if len(hidden) > 1 and index in hidden:
            if index == hidden.start:
                yield (f"… {len(hidden):,} more",)
            start += tensor.size
            continue
        cells = (tensor.name, tensor.shape, f"{start}:{start + tensor.size}", tensor.dtype)
        yield tuple(str(cell) for cell in cells)
        start += tensor.size


def _made(provenance: Mapping[str, Any]) -> str:
    """Return the time, place and versions of the computation as one line."""
    versions = [f"{n} {provenance[n]}" for n in ("autodiff_jobs", "torch") if n in provenance]
    place = [f"on {provenance[name]}" for name in ("device", "host") if name in provenance]
    return ", ".join([str(provenance.get("created", "at an unknown time")), *place, *versions])


def _time(result: ShownResult) -> str:
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


def _arrays(result: AnyResult, name: str) -> str:
    """Return the names, shapes and dtypes of stored arrays, none of which is read."""
    shown = [f"{key} {a.shape} {a.dtype}" for key, a in result.stored_arrays(name).items()]
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
