"""Lay out result files: datasets, dimension scales and attributes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import TensorSpec
from outputs._format.description import BLOCKS, CURVATURES, DIAGONAL, FULL, ResultDescription
from outputs._format.digests import create_digests
from outputs._format.names import (
    CURRENT_MINOR_VERSION,
    DRAWN,
    EXECUTION_BYTES,
    FORMAT,
    GROUPS,
    LEDGER_DTYPE,
    MINOR_VERSION,
    OFFSETS,
    POINTS,
    STRUCTURE,
    VERSION_OF_BLOCKS,
    VERSION_OF_CURVATURES,
    VERSION_OF_DIAGONALS,
    VERSION_OF_DRAWN_VECTORS,
    VERSION_OF_PARTS,
    VERSION_OF_POINTS,
    VERSION_OF_RAGGED_FILES,
    VERSION_OF_RAGGED_SELECTIONS,
    VERSION_OF_SELECTIONS,
    VERSION_OF_SPARSE_FILES,
    VERSION_OF_WHOLE_FILES,
    VIRTUAL,
    WHOLE_TILE,
    Names,
)
from outputs._format.probes import Probes
from outputs._format.ragged_matrices import offsets_of
from outputs._format.tables import dataset
from outputs._format.tiling import planned_tile
from outputs._storage.files import LIBVER, create_file

GZIP_LEVEL = 4

# What HDF5 needs for itself in the smallest file, about.
_HEADER_BYTES = 2**14
# Another strategy may continue a job; its name is then added without moving anything in the file.
_STRATEGY_BYTES = 256

_DATALESS_SCALE = "This is a netCDF dimension but not a netCDF variable.%10d"


def stored_bytes(description: ResultDescription) -> int:
    """Return the approximate disk space, in bytes, of an unfinished result."""
    shape: tuple[int, ...] = description.stored_shape
    if (planned := planned_tile(description)) is not None:
        tile = (min(planned[0], shape[0]), min(planned[1], shape[1]))
        # Tiles at the edges are stored completely.
        shape = tuple(-(-n // t) * t for n, t in zip(shape, tile, strict=True))
    entries = description.entries if description.is_ragged else math.prod(shape)
    matrix = entries * np.dtype(description.dtype).itemsize
    groups = description.point, description.value, description.vectors
    probes = description.probes.arrays() if description.probes is not None else {}
    arrays = [array for group in (*groups, probes) for array in group.values()]
    tables = [_table(description.rows), _table(description.columns)]
    return (
        matrix
        + description.lines * LEDGER_DTYPE.itemsize
        + sum(np.asarray(array).nbytes for array in [*arrays, *tables])
        + len(description.configuration.encode())
        + EXECUTION_BYTES
        + _HEADER_BYTES
    )


def create(
    path: Path,
    description: ResultDescription,
    *,
    packed: bool = False,
    virtual: h5py.VirtualLayout | None = None,
    libver: tuple[str, str] = LIBVER,
) -> None:
    """Create a file with the complete layout of a result, and close it.

    Args:
        path: A path at which no file exists yet.
        description: The description of the result.
        packed: False to allocate the whole space of the matrix now; True to allocate compressed
            tiles as they are written.
        virtual: The virtual layout of a matrix stored in other files; None for a matrix in this
            file.
        libver: Bounds of the HDF5 format version.

    Raises:
        ResultError: If the file cannot be created.
    """
    with create_file(path, libver) as file:
        _write_header(file, description, is_virtual=virtual is not None)
        if virtual is not None:
            matrix = file.create_virtual_dataset(description.operation, virtual)
        else:
            matrix = _create_matrix(file, description, packed=packed)
        if description.is_ragged:
            file.create_dataset(OFFSETS, data=offsets_of(*description.sizes))
            if description.structure == BLOCKS:
                file.create_dataset(GROUPS, data=np.array(description.groups, "<i8"))
        else:
            _attach_dimensions(file, matrix)
        _write_context(file, description)
        _create_ledger(file, description.lines)
        create_digests(file)


def _attach_dimensions(file: h5py.File, matrix: h5py.Dataset) -> None:
    *points, rows, columns = matrix.shape
    for count in points:
        _attach(matrix, 0, _dimension(file, Names.POINT_NUMBER, count))
    _attach(matrix, len(points), _dimension(file, Names.ROW, rows))
    _attach(matrix, len(points) + 1, _dimension(file, Names.COLUMN, columns))


def create_sparse(path: Path, description: ResultDescription) -> h5py.File:
    """Create a file with everything but the sparse matrix and the digests, open for writing.

    Args:
        path: A path at which no file exists yet.
        description: The description of the result.

    Raises:
        ResultError: If the file cannot be created.
    """
    file = create_file(path)
    _write_header(file, description, is_virtual=False, version=VERSION_OF_SPARSE_FILES)
    _write_context(file, description)
    return file


def write_execution(file: h5py.File, record: Mapping[str, Any]) -> None:
    """Write the execution record into its preallocated space.

    Args:
        file: The file, open for writing.
        record: The record, serializable as JSON.

    Raises:
        ResultError: If the record cannot be serialized as JSON, or exceeds its space.
    """
    try:
        text = json.dumps(record, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ResultError(f"The execution record cannot be written as JSON: {error}.") from error
    if len(text) > EXECUTION_BYTES:
        raise ResultError(
            f"The execution record takes {len(text)} bytes as JSON; "
            f"there is space for {EXECUTION_BYTES}."
        )
    target = dataset(file, Names.EXECUTION)
    target[()] = np.array(text, dtype=target.dtype)


def write_strategy(file: h5py.File, strategy: str) -> None:
    """Write the attribute that names the strategies, in its place if there is one.

    Args:
        file: The file, open for writing.
        strategy: The names, with commas between them.
    """
    text = strategy.encode()
    if "strategy" in file.attrs:
        stored = file.attrs.get_id("strategy")
        if stored.dtype.itemsize >= len(text):
            # A kill cannot fall between two writes, as when HDF5 replaces the attribute.
            stored.write(np.array(text, stored.dtype))
            return
    dtype = h5py.string_dtype("utf-8", max(_STRATEGY_BYTES, len(text)))
    file.attrs.create("strategy", text, dtype=dtype)


def _write_context(file: h5py.File, description: ResultDescription) -> None:
    """Write the tables, arrays, configuration, provenance, execution record and probes."""
    _write_table(file, Names.ROWS, "row_tensor", description.rows)
    _write_table(file, Names.COLUMNS, "column_tensor", description.columns)
    if (selection := description.selection) is not None:
        file.create_dataset(Names.ROW_NUMBERS, data=selection.rows.astype("<i8"))
        file.create_dataset(Names.COLUMN_NUMBERS, data=selection.columns.astype("<i8"))
        _write_table(file, Names.WHOLE_ROWS, "whole_row_tensor", selection.whole_rows)
        _write_table(file, Names.WHOLE_COLUMNS, "whole_column_tensor", selection.whole_columns)
    for group, arrays in ((Names.POINT, description.point), (Names.VALUE, description.value)):
        _write_arrays(file.create_group(group, track_order=True), arrays)
    vectors = file.create_group(Names.VECTORS, track_order=True)
    _write_arrays(vectors, description.vectors)
    if (drawn := description.drawn_vectors) is not None:
        write_attributes(vectors, {name: getattr(drawn, name) for name in DRAWN})
        _write_table(file, Names.VECTOR_TENSORS, "vector_tensor", drawn.tensors)
    _write_text(file, Names.CONFIGURATION, description.configuration.encode())
    write_attributes(file.create_group(Names.PROVENANCE), description.provenance)
    _write_text(file, Names.EXECUTION, b"", EXECUTION_BYTES)
    if description.probes is not None:
        _write_probes(file.create_group(Names.PROBES), description.probes)


def _write_header(
    file: h5py.File,
    description: ResultDescription,
    *,
    is_virtual: bool,
    version: int | None = None,
) -> None:
    texts = ("operation", "function", "fingerprint", "axis", "compression")
    # Stored as integers, because HDF5 has no boolean and readers differ on h5py's enumeration.
    numbers = ("rows_are_tuple", "columns_are_tuple")
    shard = description.shard
    is_plain = shard is None and not is_virtual
    if version is None:
        version = VERSION_OF_WHOLE_FILES if is_plain else VERSION_OF_PARTS
        version = version if description.points is None else VERSION_OF_POINTS
        if description.operation in CURVATURES:
            version = VERSION_OF_CURVATURES
        version = VERSION_OF_RAGGED_FILES if description.is_ragged else version
    if description.selection is not None:
        version = max(version, VERSION_OF_SELECTIONS)
        version = VERSION_OF_RAGGED_SELECTIONS if description.is_ragged else version
    if description.drawn_vectors is not None:
        version = VERSION_OF_DRAWN_VECTORS
    if description.structure == DIAGONAL:
        version = VERSION_OF_DIAGONALS
    if description.structure == BLOCKS:
        version = VERSION_OF_BLOCKS
    write_attributes(
        file,
        {"format": FORMAT, "format_version": version, MINOR_VERSION: CURRENT_MINOR_VERSION}
        | {name: getattr(description, name) for name in texts}
        | {name: int(getattr(description, name)) for name in numbers},
    )
    write_strategy(file, description.strategy)
    if is_virtual:
        write_attributes(file, {VIRTUAL: 1})
    if description.points is not None:
        write_attributes(file, {POINTS: description.points})
    if description.structure != FULL:
        write_attributes(file, {STRUCTURE: description.structure})
    if shard is not None:
        write_attributes(file, {f"shard_{name}": value for name, value in asdict(shard).items()})
        if description.tile is not None:
            write_attributes(file, dict(zip(WHOLE_TILE, description.tile, strict=True)))


def write_attributes(target: h5py.Group, values: Mapping[str, str | int | float | bool]) -> None:
    """Write attributes, strings with fixed length."""
    for name, value in values.items():
        if isinstance(value, str):
            # Strings of variable length are stored in a heap, on which HDF5 loops forever when
            # it is damaged (measured).
            text = value.encode()
            target.attrs.create(name, text, dtype=_fixed([text]))
        else:
            target.attrs[name] = value


def _create_matrix(
    file: h5py.File, description: ResultDescription, *, packed: bool
) -> h5py.Dataset:
    shape: tuple[int, ...] = description.stored_shape
    dtype = np.dtype(description.dtype)
    if description.is_ragged:
        shape, properties = (description.entries,), _properties(h5py.h5d.FILL_TIME_NEVER)
        return file.create_dataset(description.operation, shape, dtype, dcpl=properties)
    tile = planned_tile(description, packed=packed)
    properties = _properties(h5py.h5d.FILL_TIME_NEVER)
    points = None if description.shard is not None else description.points
    if points is not None:
        height = shape[0] // points
        shape = (points, height, shape[1])
        if tile is not None:
            properties.set_chunk((tile[0] // height, height, tile[1]))
    elif tile is not None:
        properties.set_chunk((min(tile[0], shape[0]), min(tile[1], shape[1])))
    if packed and tile is not None:
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_INCR)
        properties.set_shuffle()
        properties.set_deflate(GZIP_LEVEL)
    return file.create_dataset(description.operation, shape, dtype, dcpl=properties)


def _create_ledger(file: h5py.File, capacity: int) -> None:
    # Zeros are written explicitly, because an entry that was never written must read as empty.
    ledger = file.create_dataset(
        Names.LEDGER, (capacity,), LEDGER_DTYPE, dcpl=_properties(h5py.h5d.FILL_TIME_ALLOC)
    )
    _attach(ledger, 0, _dimension(file, "ledger_entry", capacity))


def _properties(fill_time: int) -> Any:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    # A modification time would be metadata that changes after the layout is sealed.
    properties.set_obj_track_times(False)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(fill_time)
    return properties


def _dimension(file: h5py.File, name: str, size: int) -> h5py.Dataset:
    # A scale whose data are never written occupies no space, whatever its length.
    scale = file.create_dataset(name, (size,), ">f4")
    scale.make_scale(_DATALESS_SCALE % size)
    return scale


def _attach(target: h5py.Dataset, axis: int, scale: h5py.Dataset) -> None:
    target.dims[axis].attach_scale(scale)


def _write_table(
    file: h5py.File, name: str, dimension: str, tensors: tuple[TensorSpec, ...]
) -> None:
    table = file.create_dataset(name, data=_table(tensors))
    _attach(table, 0, _dimension(file, dimension, len(tensors)))


def _table(tensors: tuple[TensorSpec, ...]) -> np.ndarray:
    stops = np.cumsum([tensor.size for tensor in tensors], dtype=np.int64)
    entries = [
        (
            tensor.name.encode(),
            json.dumps(list(tensor.shape)).encode(),
            stop - tensor.size,
            stop,
            tensor.dtype.encode(),
        )
        for tensor, stop in zip(tensors, stops.tolist(), strict=True)
    ]
    dtype = np.dtype(
        [
            ("name", _fixed(entry[0] for entry in entries)),
            ("shape", _fixed(entry[1] for entry in entries)),
            ("start", "<i8"),
            ("stop", "<i8"),
            ("dtype", _fixed(entry[4] for entry in entries)),
        ]
    )
    return np.array(entries, dtype=dtype)


def _fixed(texts: Iterable[bytes]) -> np.dtype:
    return h5py.string_dtype("utf-8", max([1, *map(len, texts)]))


def _write_probes(group: h5py.Group, probes: Probes) -> None:
    facts = {"tolerance": probes.tolerance, "pairing": probes.pairing, "floor": probes.floor}
    write_attributes(group, facts)
    _write_arrays(group, probes.arrays())


def _write_arrays(group: h5py.Group, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        group.create_dataset(Names.escape(name), data=np.asarray(array))


def _write_text(file: h5py.File, name: str, text: bytes, capacity: int = 0) -> None:
    dtype = h5py.string_dtype("utf-8", max(1, capacity, len(text)))
    target = file.create_dataset(name, (), dtype, dcpl=_properties(h5py.h5d.FILL_TIME_ALLOC))
    target[()] = np.array(text, dtype=dtype)
