"""Export to MATLAB's MAT-file version 7.3, which is HDF5 with conventions.

Version 5, also common, is not used: its variables are limited to 2 GiB, and SciPy, which writes
it, needs the whole matrix in memory.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from outputs._format.axes import TensorSpec
from outputs._reading.views.metadata import arrays, attributes, line_numbers, table
from outputs._reading.views.protocol import DenseResult
from outputs._scanning.sequential import Advance, piece_shape, pieces
from outputs._storage.files import create_file
from outputs._storage.written_files import WrittenFile

USER_BLOCK = 512
"""Bytes before HDF5's own, which hold the header."""
_CHUNK_BYTES = 2 * 2**20
_LONGEST_NAME = 63
_CLASSES = {"f8": "double", "f4": "single", "c16": "double", "c8": "single", "b1": "logical"}
_REFERENCES = "#refs#"


def write(result: DenseResult, path: Path, advance: Advance) -> None:
    """Write variables that MATLAB's ``load`` shows in their natural orientation.

    They are the matrix under the name of its operation, rows x columns; ``rows`` and ``columns``,
    structs with the cell arrays ``name``, ``shape`` and ``dtype`` and the columns ``first`` and
    ``last``, which count from 1 as MATLAB does, with ``numbers`` where lines were selected;
    ``point``, ``value`` and ``vectors``, structs of arrays;
    ``about``, a struct with the result's header, provenance and configuration. MATLAB's
    names have only ASCII letters, digits and ``_``, and at most 63 of them: ``about.fields`` maps
    the fields that had to be renamed to the names of the tensors, as JSON.

    Args:
        result: A complete result.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
    """
    with create_file(path, user_block=USER_BLOCK) as file:
        _matrix(file, result, advance)
        numbers = line_numbers(result)
        for name, tensors in (("rows", result.rows), ("columns", result.columns)):
            _table(file, name, tensors, numbers.get(name.removesuffix("s")))
        renamed = {}
        for name, members in arrays(result).items():
            _struct(file, name, members)
            pairs = zip(_identifiers(members), members, strict=True)
            renamed[name] = {field: given for field, given in pairs if field != given}
        about = {key: text for key, text in attributes(result).items() if key != "names"}
        _struct(file, "about", about | {"fields": json.dumps(renamed)})
    with open(path, "r+b") as raw:
        raw.write(header())


def header() -> bytes:
    """Return the bytes at the beginning of a file."""
    text = b"MATLAB 7.3 MAT-file, Platform: Python, Created by: autodiff-jobs HDF5 schema 1.00 ."
    # 116 bytes of text, no subsystem data, version 2.0, and the little-endian marker.
    return struct.pack("<116s8xH2s", text.ljust(116), 0x0200, b"IM")


def _matrix(file: WrittenFile, result: DenseResult, advance: Advance) -> None:
    if 0 in result.shape:
        _array(file, result.operation, np.empty(result.shape, result.dtype))
        return
    source = result.dataset()
    height, width = _chunk(source)
    dtype = _stored(result.dtype)
    # MATLAB's first dimension varies fastest, HDF5's last, so the file holds the transpose.
    target = file.create_dataset(
        result.operation, result.shape[::-1], dtype, chunks=(width, height)
    )
    _classify(target, result.dtype)
    whole = piece_shape(source)
    tall, wide = (max(c, p - p % c) for p, c in zip(whole, (height, width), strict=True))
    for region, values in pieces(source, (tall, wide)):
        target[region[1], region[0]] = _converted(values.T)
        file.require_written()
        advance(values.nbytes)


def _chunk(source: h5py.Dataset) -> tuple[int, int]:
    """Return the (rows, columns) of a chunk: those of a tile, or of a square of about 2 MiB."""
    if source.chunks is not None:
        return source.chunks
    side = 2 ** int(np.log2(_CHUNK_BYTES // source.dtype.itemsize) / 2)
    rows, columns = source.shape
    height = min(rows, side)
    return height, min(columns, max(side, side * side // height))


def _table(file: h5py.File, name: str, tensors: tuple[TensorSpec, ...], numbers: Any) -> None:
    records = table(tensors)
    fields: dict[str, Any] = {
        "name": [record["name"] for record in records],
        "shape": [np.array([record["shape"]], dtype=float) for record in records],
        "first": np.array([record["start"] + 1 for record in records], dtype=float),
        "last": np.array([record["stop"] for record in records], dtype=float),
        "dtype": [record["dtype"] for record in records],
    }
    if numbers is not None:
        fields["numbers"] = numbers + 1.0
    _struct(file, name, fields)


def _struct(parent: h5py.Group, name: str, fields: Mapping[str, Any]) -> None:
    group = parent.create_group(name, track_order=True)
    _mark(group, "struct")
    for field, value in zip(_identifiers(fields), fields.values(), strict=True):
        if isinstance(value, list):
            _cell(group, field, value)
        else:
            _value(group, field, value)


def _cell(parent: h5py.Group, name: str, values: list[Any]) -> None:
    store = parent.file.require_group(_REFERENCES)
    references = [_value(store, f"r{len(store)}", value).ref for value in values]
    cell = parent.create_dataset(name, (1, len(values)), h5py.ref_dtype)
    _mark(cell, "cell")
    for index, reference in enumerate(references):
        cell[0, index] = reference


def _value(parent: h5py.Group, name: str, value: Any) -> h5py.Dataset:
    if isinstance(value, str):
        return _text(parent, name, value)
    return _array(parent, name, np.asarray(value))


def _text(parent: h5py.Group, name: str, text: str) -> h5py.Dataset:
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
    if not units.size:
        return _empty(parent, name, (0, 0), "char")
    stored = parent.create_dataset(name, data=units.reshape(-1, 1))
    _mark(stored, "char", decode=2)
    return stored


def _array(parent: h5py.Group, name: str, values: np.ndarray) -> h5py.Dataset:
    # MATLAB arrays have at least two dimensions; a vector is a column.
    shape = values.shape + (1,) * (2 - values.ndim)
    if not values.size:
        return _empty(parent, name, shape, _class(values.dtype))
    stored = parent.create_dataset(name, data=_converted(values.reshape(shape).T))
    _classify(stored, values.dtype)
    return stored


def _empty(parent: h5py.Group, name: str, shape: tuple[int, ...], kind: str) -> h5py.Dataset:
    stored = parent.create_dataset(name, data=np.array(shape, "<u8"))
    _mark(stored, kind)
    stored.attrs["MATLAB_empty"] = np.uint8(1)
    return stored


def _stored(dtype: np.dtype) -> np.dtype:
    """Return the dtype of a dataset: complex numbers as (real, imag), booleans as bytes."""
    wide = np.dtype({"f2": "f4", "b1": "u1"}.get(dtype.str[1:], dtype.str))
    if wide.kind != "c":
        return wide
    part = np.dtype(f"f{wide.itemsize // 2}")
    return np.dtype([("real", part), ("imag", part)])


def _converted(values: np.ndarray) -> np.ndarray:
    stored = _stored(values.dtype)
    if stored.names is None:
        return values.astype(stored, copy=False)
    return np.ascontiguousarray(values).view(stored)


def _classify(target: h5py.Dataset, dtype: np.dtype) -> None:
    _mark(target, _class(dtype), decode=1 if dtype.kind == "b" else None)


def _class(dtype: np.dtype) -> str:
    wide = "f4" if dtype == np.float16 else dtype.str[1:]
    return _CLASSES.get(wide, dtype.name)


def _mark(target: h5py.Group | h5py.Dataset, kind: str, decode: int | None = None) -> None:
    target.attrs["MATLAB_class"] = np.bytes_(kind)
    if decode is not None:
        target.attrs["MATLAB_int_decode"] = np.int32(decode)


def _identifiers(names: Iterable[str]) -> list[str]:
    """Return a distinct, valid MATLAB field name for each name."""
    found: dict[str, None] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not plain[:1].isalpha():
            plain = f"x{plain}"
        plain, number = plain[:_LONGEST_NAME], 1
        short = plain[: _LONGEST_NAME - 8]
        while plain in found:
            number += 1
            plain = f"{short}_{number}"
        found[plain] = None
    return list(found)
