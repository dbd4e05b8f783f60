"""What stands beside the matrix, in forms that other formats can hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from outputs._format.axes import TensorSpec

if TYPE_CHECKING:
    from outputs._reading.result import Result

ARRAY_GROUPS = ("point", "value", "vectors")


def table(tensors: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    """The tensors of an axis as records that JSON can hold, with their ranges."""
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


def table_columns(tensors: tuple[TensorSpec, ...]) -> dict[str, np.ndarray]:
    """The same as five arrays of shape (tensors,): strings, and int64 for ``start`` and ``stop``.

    The shapes are JSON, as in the file: ``"[2, 3]"``.
    """
    records = table(tensors)
    columns: dict[str, np.ndarray] = {}
    for field in ("name", "shape", "start", "stop", "dtype"):
        values = [json.dumps(r[field]) if field == "shape" else r[field] for r in records]
        columns[field] = np.array(values, np.int64 if field in ("start", "stop") else np.str_)
    return columns


def arrays(result: Result) -> dict[str, dict[str, np.ndarray]]:
    """The groups ``point``, ``value`` and ``vectors``, without those that are empty."""
    groups = dict(zip(ARRAY_GROUPS, (result.points, result.value, result.vectors), strict=True))
    return {name: group for name, group in groups.items() if group}


def attributes(result: Result) -> dict[str, str | int | float]:
    """What the result is, as strings and numbers; provenance keys start with ``provenance_``."""
    header = {
        name: getattr(result, name) for name in ("operation", "function", "strategy", "fingerprint")
    }
    provenance = {
        f"provenance_{name}": int(value) if isinstance(value, bool) else value
        for name, value in result.provenance.items()
    }
    texts = {"configuration": result.configuration, "execution": json.dumps(result.execution)}
    return header | provenance | texts


def beside(result: Result) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Tables and arrays under flat names, each with the names of its dimensions.

    ``row_name``, ``row_shape``, ``row_start``, ``row_stop`` and ``row_dtype`` over the dimension
    ``row_tensor``, the same for ``column``, and ``point_<name>``, ``value_<name>`` and
    ``vectors_<name>`` in natural shape.
    """
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for axis, tensors in (("row", result.rows), ("column", result.columns)):
        for field, values in table_columns(tensors).items():
            found[f"{axis}_{field}"] = ((f"{axis}_tensor",), values)
    for group, members in arrays(result).items():
        for name, values in members.items():
            flat = f"{group}_{name}".replace("/", "_")
            while flat in found:
                flat += "_"
            found[flat] = (tuple(f"{flat}_{axis}" for axis in range(values.ndim)), values)
    return found
