"""Convert the metadata stored beside the matrix to forms that other formats can hold."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

import numpy as np

from outputs._format.axes import TensorSpec
from outputs._reading.views.names import escaped
from outputs._reading.views.protocol import DenseResult

_ARRAY_GROUPS = ("point", "value", "vectors")


def table(tensors: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    """Return the tensors of an axis, with their ranges, as JSON-serializable records."""
    records, start = [], 0
    for tensor in tensors:
        stop = start + tensor.size
        shape = list(tensor.shape)
        records.append(
            {
                "name": tensor.name,
                "shape": shape,
                "start": start,
                "stop": stop,
                "dtype": tensor.dtype,
            }
        )
        start = stop
    return records


def _table_columns(tensors: tuple[TensorSpec, ...]) -> dict[str, np.ndarray]:
    """Return the fields of `table` as five arrays of shape (tensors,).

    ``start`` and ``stop`` are int64, the others strings. The shapes are JSON, as in the file:
    ``"[2, 3]"``.
    """
    records = table(tensors)
    columns: dict[str, np.ndarray] = {}
    for field in ("name", "shape", "start", "stop", "dtype"):
        values = [json.dumps(r[field]) if field == "shape" else r[field] for r in records]
        columns[field] = np.array(values, np.int64 if field in ("start", "stop") else np.str_)
    return columns


def arrays(result: DenseResult) -> dict[str, dict[str, np.ndarray]]:
    """Return the groups ``point``, ``value`` and ``vectors``, omitting empty ones."""
    # Vectors that are drawn may not fit in memory, and are named among the attributes.
    vectors = result.vectors if result.drawn_vectors is None else {}
    groups = dict(zip(_ARRAY_GROUPS, (result.points, result.value, vectors), strict=True))
    return {name: group for name, group in groups.items() if group}


def line_numbers(result: DenseResult) -> dict[str, np.ndarray]:
    """Return the numbers of selected rows and columns, by ``row`` and ``column``; else nothing."""
    if result.selection is None:
        return {}
    return {"row": result.row_numbers, "column": result.column_numbers}


def attributes(result: DenseResult) -> dict[str, str | int | float]:
    """Return header, provenance, configuration and execution record as strings and numbers.

    Provenance keys start with ``provenance_``. ``names`` maps the names of arrays as they are
    exported to those of the tensors where they differ, as JSON.
    """
    header = {
        name: getattr(result, name) for name in ("operation", "function", "strategy", "fingerprint")
    }
    provenance = {
        f"provenance_{name}": int(value) if isinstance(value, bool) else value
        for name, value in result.provenance.items()
    }
    texts = {"configuration": result.configuration, "execution": json.dumps(result.execution)}
    if result.drawn_vectors is not None:
        texts["vectors"] = str(result.drawn_vectors)
    if renamed := _renamed(result):
        texts["names"] = json.dumps(renamed)
    return header | provenance | texts


def _renamed(result: DenseResult) -> dict[str, dict[str, str]]:
    """Return the original names of arrays, by group and exported name, where the two differ."""
    found = {
        group: {new: name for name in members if (new := escaped(name)) != name}
        for group, members in arrays(result).items()
    }
    return {group: names for group, names in found.items() if names}


def flat_variables(result: DenseResult) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Return tables and arrays under flat names, each with the names of its dimensions.

    The names are ``row_name``, ``row_shape``, ``row_start``, ``row_stop`` and ``row_dtype`` over
    the dimension ``row_tensor``, the same for ``column``, and ``point_<name>``, ``value_<name>``
    and ``vectors_<name>`` in natural shape, with names as `escaped` writes them. Where rows and
    columns were selected, their numbers are the coordinates ``row`` and ``column``.
    """
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        axis: ((axis,), numbers) for axis, numbers in line_numbers(result).items()
    }
    for axis, tensors in (("row", result.rows), ("column", result.columns)):
        for field, values in _table_columns(tensors).items():
            found[f"{axis}_{field}"] = ((f"{axis}_tensor",), values)
    for group, members in arrays(result).items():
        for name, values in members.items():
            found[f"{group}_{escaped(name)}"] = ((), values)
    for flat, (dimensions, values) in found.items():
        if not dimensions:
            axes = (_unused(f"{flat}_{axis}", found) for axis in range(values.ndim))
            found[flat] = (tuple(axes), values)
    return found


def _unused(name: str, taken: Container[str]) -> str:
    """Return a name for a dimension that is not that of a variable, which would be its scale."""
    while name in taken:
        name += "_"
    return name
