"""Where everything stands in the file: the names, and a description written and read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.description import (
    MATRICES,
    PRODUCTS,
    Axis,
    Compression,
    Pairing,
    Probes,
    ResultDescription,
    Shard,
    TensorSpec,
    require_fitting,
)
from outputs._format.stacked_matrices import Matrix, StackedMatrices
from outputs._format.validation import member, require_sound, scalar
from outputs._storage.files import LIBVER, create_file

FORMAT = "autodiff-jobs"
FORMAT_VERSION = 4
# Files that an earlier reader can read say so.
_VERSION_OF_WHOLE_FILES = 1
_VERSION_OF_PARTS = 2
_VERSION_OF_POINTS = 3
_VERSION_OF_SPARSE_FILES = 4

GZIP_LEVEL = 4

LEDGER_DTYPE = np.dtype(
    [
        ("start", "<i8"),
        ("stop", "<i8"),
        ("seconds", "<f8"),
        ("checksum", "<u4"),
        ("state", "<u4"),
    ]
)

TABLE_FIELDS = ("name", "shape", "start", "stop", "dtype")
PROBES = ("right", "right_product", "left", "left_product")

_MAX_TEXT_BYTES = 64 * 2**20
_EXECUTION_BYTES = 256 * 1024
_TILE_BYTES = 2 * 2**20
_TILE_LINES = 16
_MOST_TILE_LINES = 256
_SMALL_TILE_BYTES = 256 * 2**10
_MANY_TILES = 65536
# What was asked for; a small shard may have smaller ones.
_WHOLE_TILE = ("tile_rows", "tile_columns")
_VIRTUAL = "virtual"
_POINTS = "points"
_DATALESS_SCALE = "This is a netCDF dimension but not a netCDF variable.%10d"


class Names:
    """The names of groups and datasets; the matrix is named by its operation."""

    ROWS = "rows"
    COLUMNS = "columns"
    POINT = "point"
    VALUE = "value"
    VECTORS = "vectors"
    CONFIGURATION = "configuration"
    PROVENANCE = "provenance"
    EXECUTION = "execution"
    LEDGER = "ledger"
    PROBES = "probes"
    ROW = "row"
    COLUMN = "column"
    POINT_NUMBER = "point_number"

    @staticmethod
    def escape(name: str) -> str:
        """One HDF5 path component for any tensor name."""
        if name in ("", "."):
            return {"": "%", ".": "%2E"}[name]
        return name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")

    @staticmethod
    def unescape(component: str) -> str:
        """The tensor name of an HDF5 path component."""
        return "" if component == "%" else unquote(component)


def stored_bytes(description: ResultDescription) -> int:
    """About how much space an unfinished result takes on the disk."""
    rows, columns = description.stored_shape
    matrix = rows * columns * np.dtype(description.dtype).itemsize
    return matrix + description.lines * LEDGER_DTYPE.itemsize + _EXECUTION_BYTES


def planned_tile(description: ResultDescription, *, packed: bool = False) -> tuple[int, int] | None:
    """The shape of the tiles that a result will have; None for rows one after the other.

    Args:
        description: The result.
        packed: Whether it is compressed already; it is uncompressed until it is finished.
    """
    if 0 in description.stored_shape:  # HDF5 has no tiles of an empty dataset
        return None
    # Measured: row blocks go faster into contiguous space than into any tile, and it needs no
    # index; compressed data and column blocks need tiles.
    if description.points is not None and description.shard is None:
        return _tile_of_points(description) if packed else None
    if description.tile is None and (packed or description.axis == "columns"):
        itemsize = np.dtype(description.dtype).itemsize
        shape, block = description.stored_shape, description.block_lines
        return tile_shape(shape, itemsize, description.axis, block)
    return description.tile


def tile_shape(
    shape: tuple[int, int], itemsize: int, axis: Axis, block_lines: int | None = None
) -> tuple[int, int]:
    """The tile for blocks that arrive along ``axis``: few lines, long across, 2 MiB at most.

    Where it is known how large blocks are, a tile has as many lines as a block, so that a part of
    the block is a tile without a copy; or a part of them; or of very small blocks several, though a
    tile that is written in parts is read each time. Else extents divide the matrix evenly, because
    HDF5 stores the tiles at its edge whole.

    Args:
        shape: Shape of the matrix, without a zero.
        itemsize: Bytes an entry.
        axis: The axis along which blocks arrive.
        block_lines: How many lines a block has, where that is known.
    """
    lines, across = shape if axis == "rows" else shape[::-1]
    together = _lines_of_blocks(lines, across * itemsize, block_lines)
    if together is not None:
        lines = together
        across = _even_part(across, max(1, _TILE_BYTES // (lines * itemsize)), multiple=1)
    else:
        across = _even_part(across, _TILE_BYTES // (min(lines, _TILE_LINES) * itemsize), multiple=1)
        lines = _even_part(lines, _TILE_BYTES // (across * itemsize), multiple=_TILE_LINES)
    return (lines, across) if axis == "rows" else (across, lines)


def _lines_of_blocks(lines: int, line_bytes: int, block_lines: int | None) -> int | None:
    """How many lines of a tile fit to blocks; None where blocks are not known, or nothing fits."""
    if block_lines is None:
        return None
    block_lines = min(block_lines, lines)
    if block_lines <= _MOST_TILE_LINES:
        # Of smaller tiles the way to them takes longer than their bytes, and more of them than
        # that take too long to lay out.
        least = min(_TILE_BYTES, max(_SMALL_TILE_BYTES, lines * line_bytes // _MANY_TILES))
        return min(lines, block_lines * -(-least // (block_lines * line_bytes)))
    parts = range(-(-block_lines // _MOST_TILE_LINES), block_lines // _TILE_LINES + 1)
    return next((block_lines // n for n in parts if block_lines % n == 0), None)


def _tile_of_points(description: ResultDescription) -> tuple[int, int]:
    """Of whole points, so that a tile is a rectangle also of the matrix of all points' rows."""
    rows, columns = description.shape
    height = rows // (description.points or 1)
    itemsize = np.dtype(description.dtype).itemsize
    width = _even_part(columns, max(1, _TILE_BYTES // (height * itemsize)), multiple=1)
    points = max(1, _TILE_BYTES // (height * width * itemsize))
    return height * min(points, description.points or 1), width


def _even_part(length: int, limit: int, multiple: int) -> int:
    parts = -(-length // limit)
    part = -(-length // parts)
    return min(length, -(-part // multiple) * multiple)


def create(
    path: Path,
    description: ResultDescription,
    *,
    packed: bool = False,
    virtual: h5py.VirtualLayout | None = None,
    libver: tuple[str, str] = LIBVER,
) -> None:
    """Lays a result out completely and closes it.

    Args:
        path: A file that does not exist yet.
        description: What the file holds.
        packed: False for a matrix whose whole space is allocated now; True for one whose
            compressed tiles are allocated as they are written.
        virtual: Where the matrix stands if not in this file.
        libver: The versions of HDF5's format.

    Raises:
        ResultError: If the file cannot be created.
    """
    with create_file(path, libver) as file:
        _write_header(file, description, is_virtual=virtual is not None)
        if virtual is not None:
            matrix = file.create_virtual_dataset(description.operation, virtual)
        else:
            matrix = _create_matrix(file, description, packed=packed)
        *points, rows, columns = matrix.shape
        for count in points:
            _attach(matrix, 0, _dimension(file, Names.POINT_NUMBER, count))
        _attach(matrix, len(points), _dimension(file, Names.ROW, rows))
        _attach(matrix, len(points) + 1, _dimension(file, Names.COLUMN, columns))
        _write_context(file, description)
        _create_ledger(file, description.lines)


def create_sparse(path: Path, description: ResultDescription) -> h5py.File:
    """A new file with all that stands beside a sparse matrix, open for writing.

    Args:
        path: A file that does not exist yet.
        description: What the file holds.

    Raises:
        ResultError: If the file cannot be created.
    """
    file = create_file(path)
    _write_header(file, description, is_virtual=False, version=_VERSION_OF_SPARSE_FILES)
    _write_context(file, description)
    return file


def is_sparse(file: h5py.File) -> bool:
    """Whether a result holds a matrix in compressed rows."""
    return scalar(file, "format_version") == _VERSION_OF_SPARSE_FILES


def read_description(file: h5py.File) -> ResultDescription:
    """The description that a file was created with; its arrays are read into memory."""
    matrix = matrix_of(file)
    shard, tile, points = read_shard(file), matrix.chunks, read_points(file)
    if points is not None:
        tile = None
    elif shard is not None:
        asked = [int(scalar(file, name)) for name in _WHOLE_TILE if name in file.attrs]
        tile = (asked[0], asked[1]) if len(asked) == len(_WHOLE_TILE) else None
    return ResultDescription(
        operation=read_attribute(file, "operation"),
        strategy=read_attribute(file, "strategy"),
        function=read_attribute(file, "function"),
        fingerprint=read_attribute(file, "fingerprint"),
        axis=axis_of(file),
        rows=read_table(file, Names.ROWS),
        columns=read_table(file, Names.COLUMNS),
        dtype=matrix.dtype.name,
        rows_are_tuple=bool(scalar(file, "rows_are_tuple")),
        columns_are_tuple=bool(scalar(file, "columns_are_tuple")),
        point=read_arrays(file, Names.POINT),
        value=read_arrays(file, Names.VALUE),
        vectors=read_arrays(file, Names.VECTORS),
        configuration=read_text(file, Names.CONFIGURATION),
        provenance=read_provenance(file),
        tile=tile,
        compression=cast(Compression, read_attribute(file, "compression")),
        probes=read_probes(file),
        shard=shard,
        points=points,
    )


def require_ours(file: h5py.File, path: Path) -> None:
    """Checks that a file is a result of a version that this package reads.

    Raises:
        ResultError: If it is another kind of file, or of a newer format version.
    """
    if "format" not in file.attrs or scalar(file, "format") != FORMAT:
        raise ResultError(f"{path} is an HDF5 file, but not a result of {FORMAT}.")
    version = scalar(file, "format_version")
    if not isinstance(version, int) or version < 1:
        raise ResultError(f"{path} is damaged: its format version is {version!r}.")
    if version > FORMAT_VERSION:
        raise ResultError(
            f"{path} has format version {version}; this installation reads versions up to "
            f"{FORMAT_VERSION}."
        )


def read_attribute(file: h5py.File, name: str) -> str:
    """A text attribute of the root."""
    value = scalar(file, name)
    if not isinstance(value, str):
        raise ResultError(f"{file.filename} is damaged: its {name} is no text.")
    return value


def matrix_of(file: h5py.File) -> Matrix:
    """The matrix, of shape (rows, columns); with many points those of all, under one another."""
    operation = read_attribute(file, "operation")
    if operation not in MATRICES + PRODUCTS:
        raise ResultError(f"{file.filename} is damaged: {operation!r} is no operation.")
    matrix = dataset(file, operation, may_be_virtual=bool(file.attrs.get(_VIRTUAL, 0)))
    points = None if "shard_index" in file.attrs else read_points(file)
    dimensions = 2 if points is None else 3
    if len(matrix.shape) != dimensions or matrix.dtype.kind not in "fciu":
        raise ResultError(f"{file.filename} is damaged: its {operation} is no matrix of numbers.")
    if points is None:
        return matrix
    if matrix.is_virtual or matrix.shape[0] != points:
        raise ResultError(f"{file.filename} is damaged: it does not hold {points} points.")
    if matrix.chunks is not None and matrix.chunks[1] != matrix.shape[1]:
        raise ResultError(f"{file.filename} is damaged: its tiles do not hold whole points.")
    return StackedMatrices(matrix)


def read_points(file: h5py.File) -> int | None:
    """Of how many points there is a matrix each; None where there is one point.

    Raises:
        ResultError: If it is no such number.
    """
    if _POINTS not in file.attrs:
        return None
    points = scalar(file, _POINTS)
    if not isinstance(points, int) or points < 1:
        raise ResultError(f"{file.filename} is damaged: {points!r} is no number of points.")
    return points


def axis_of(file: h5py.File) -> Axis:
    """The axis along which blocks arrive."""
    axis = read_attribute(file, "axis")
    if axis not in ("rows", "columns"):
        raise ResultError(f"{file.filename} is damaged: {axis!r} is no axis.")
    return cast(Axis, axis)


def dataset(group: h5py.Group, name: str, *, may_be_virtual: bool = False) -> h5py.Dataset:
    """A dataset that stands in the file itself, and whole; a virtual one only where it may be.

    Raises:
        ResultError: If it is missing, stands elsewhere, or is larger than the file.
    """
    found = member(group, name)
    if not isinstance(found, h5py.Dataset):
        raise ResultError(f"{group.file.filename} is damaged: {name!r} is no dataset.")
    if not (may_be_virtual and found.is_virtual):
        require_sound(found)
    return found


def group_of(file: h5py.File, name: str) -> h5py.Group:
    """A group that stands in the file itself.

    Raises:
        ResultError: If it is missing or stands elsewhere.
    """
    found = member(file, name)
    if not isinstance(found, h5py.Group):
        raise ResultError(f"{file.filename} is damaged: {name!r} is no group.")
    return found


def ledger_of(file: h5py.File, lines: int) -> h5py.Dataset:
    """The ledger, of ``LEDGER_DTYPE`` and shape (lines,)."""
    table = dataset(file, Names.LEDGER)
    if table.dtype != LEDGER_DTYPE or table.shape != (lines,):
        raise ResultError(f"{file.filename} is damaged: its ledger does not fit its matrix.")
    return table


def read_table(file: h5py.File, name: str) -> tuple[TensorSpec, ...]:
    """The tensors of one axis, whose ranges follow each other from 0.

    Raises:
        ResultError: If the table is none, or contradicts itself.
    """
    table = dataset(file, name)
    if len(table.shape) != 1 or table.dtype.names != TABLE_FIELDS:
        raise ResultError(f"{file.filename} is damaged: {name} is no table of tensors.")
    tensors, stop = [], 0
    for entry in table[()]:
        shape = json.loads(entry["shape"])
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ResultError(f"{file.filename} is damaged: {name} holds a shape that is none.")
        tensor = TensorSpec(entry["name"].decode(), tuple(shape), entry["dtype"].decode())
        if (int(entry["start"]), int(entry["stop"])) != (stop, stop + tensor.size):
            raise ResultError(f"{file.filename} is damaged: the ranges of {name} have gaps.")
        stop += tensor.size
        tensors.append(tensor)
    return tuple(tensors)


def read_arrays(file: h5py.File, name: str) -> dict[str, np.ndarray]:
    """The arrays of ``point``, ``value`` or ``vectors``, by tensor name, in stored order."""
    group = group_of(file, name)
    arrays = {}
    for key in map(str, group):
        array = dataset(group, key)
        if array.dtype.kind not in "biufc":
            raise ResultError(f"{file.filename} is damaged: {name}/{key} holds no numbers.")
        arrays[Names.unescape(key)] = np.asarray(array[()])
    return arrays


def read_shard(file: h5py.File) -> Shard | None:
    """Which part of a matrix the file holds; None in a file with all of it.

    Raises:
        ResultError: If the shard contradicts itself or the matrix.
    """
    if "shard_index" not in file.attrs:
        return None
    values = [scalar(file, f"shard_{name}") for name in ("index", "count", "start", "stop")]
    try:
        shard = Shard(*map(int, values))
    except (ResultError, ValueError) as error:
        raise ResultError(f"{file.filename} is damaged: {error}") from error
    lines = matrix_of(file).shape[0 if axis_of(file) == "rows" else 1]
    if shard.stop - shard.start != lines:
        raise ResultError(f"{file.filename} is damaged: its shard does not fit its matrix.")
    return shard


def whole_shape(file: h5py.File) -> tuple[int, int]:
    """Shape of the whole matrix, by the tables of its axes."""
    rows, columns = (
        sum(tensor.size for tensor in read_table(file, name))
        for name in (Names.ROWS, Names.COLUMNS)
    )
    return rows * (read_points(file) or 1), columns


def read_probes(file: h5py.File) -> Probes | None:
    """The probes of the whole matrix; None in a file without.

    Raises:
        ResultError: If they contradict themselves or do not fit the matrix.
    """
    if file.get(Names.PROBES, getlink=True) is None:
        return None
    group = group_of(file, Names.PROBES)
    arrays = {
        name: np.asarray(dataset(group, name)[()]) if name in group else None for name in PROBES
    }
    tolerance, pairing = scalar(group, "tolerance"), scalar(group, "pairing")
    try:
        probes = Probes(
            **arrays,
            tolerance=float(tolerance),
            pairing=cast(Pairing, pairing),
            floor=float(scalar(group, "floor")) if "floor" in group.attrs else 0.0,
        )
        require_fitting(probes, whole_shape(file))
    except ResultError as error:
        raise ResultError(f"{file.filename} is damaged: {error}") from error
    return probes


def read_provenance(file: h5py.File) -> dict[str, str | int | float | bool]:
    """The provenance as plain Python values."""
    group = group_of(file, Names.PROVENANCE)
    return {name: scalar(group, name) for name in map(str, group.attrs)}


def read_text(file: h5py.File, name: str) -> str:
    """The text of a scalar fixed-length string."""
    text = dataset(file, name)
    if text.shape != () or text.dtype.kind != "S" or text.dtype.itemsize > _MAX_TEXT_BYTES:
        raise ResultError(f"{file.filename} is damaged: its {name} is no text.")
    return bytes(text[()]).rstrip(b"\0").decode()


def write_execution(file: h5py.File, record: Mapping[str, Any]) -> None:
    """Writes the execution record into the space that waits for it.

    Raises:
        ResultError: If the record is no JSON, or longer than its space.
    """
    try:
        text = json.dumps(record, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ResultError(f"The execution record cannot be written as JSON: {error}.") from error
    if len(text) > _EXECUTION_BYTES:
        raise ResultError(
            f"The execution record takes {len(text)} bytes as JSON; "
            f"there is space for {_EXECUTION_BYTES}."
        )
    target = dataset(file, Names.EXECUTION)
    target[()] = np.array(text, dtype=target.dtype)


def read_execution(file: h5py.File) -> dict[str, Any]:
    """The execution record; empty before the result is finished."""
    record = json.loads(read_text(file, Names.EXECUTION) or "{}")
    if not isinstance(record, dict):
        raise ResultError(f"{file.filename} is damaged: its execution record is no record.")
    return record


def _write_context(file: h5py.File, description: ResultDescription) -> None:
    """What says of which matrix it is, where it was taken and how it is proved."""
    _write_table(file, Names.ROWS, "row_tensor", description.rows)
    _write_table(file, Names.COLUMNS, "column_tensor", description.columns)
    for group, arrays in (
        (Names.POINT, description.point),
        (Names.VALUE, description.value),
        (Names.VECTORS, description.vectors),
    ):
        _write_arrays(file.create_group(group, track_order=True), arrays)
    _write_text(file, Names.CONFIGURATION, description.configuration.encode())
    write_attributes(file.create_group(Names.PROVENANCE), description.provenance)
    _write_text(file, Names.EXECUTION, b"", _EXECUTION_BYTES)
    if description.probes is not None:
        _write_probes(file.create_group(Names.PROBES), description.probes)


def _write_header(
    file: h5py.File,
    description: ResultDescription,
    *,
    is_virtual: bool,
    version: int | None = None,
) -> None:
    texts = ("operation", "strategy", "function", "fingerprint", "axis", "compression")
    # Numbers, because HDF5 has no boolean and readers differ on h5py's enumeration.
    numbers = ("rows_are_tuple", "columns_are_tuple")
    shard = description.shard
    is_plain = shard is None and not is_virtual
    if version is None:
        version = _VERSION_OF_WHOLE_FILES if is_plain else _VERSION_OF_PARTS
        version = version if description.points is None else _VERSION_OF_POINTS
    write_attributes(
        file,
        {"format": FORMAT, "format_version": version}
        | {name: getattr(description, name) for name in texts}
        | {name: int(getattr(description, name)) for name in numbers},
    )
    if is_virtual:
        write_attributes(file, {_VIRTUAL: 1})
    if description.points is not None:
        write_attributes(file, {_POINTS: description.points})
    if shard is not None:
        write_attributes(file, {f"shard_{name}": value for name, value in asdict(shard).items()})
        if description.tile is not None:
            write_attributes(file, dict(zip(_WHOLE_TILE, description.tile, strict=True)))


def write_attributes(target: h5py.Group, values: Mapping[str, str | int | float | bool]) -> None:
    """Write attributes; texts are of fixed length."""
    for name, value in values.items():
        if isinstance(value, str):
            # Of fixed length: those of variable length stand in a heap, in which HDF5 never
            # comes to an end when it is damaged (measured).
            text = value.encode()
            target.attrs.create(name, text, dtype=_fixed([text]))
        else:
            target.attrs[name] = value


def _create_matrix(
    file: h5py.File, description: ResultDescription, *, packed: bool
) -> h5py.Dataset:
    shape: tuple[int, ...] = description.stored_shape
    dtype = np.dtype(description.dtype)
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
    # Zeros are written, not assumed: an entry that was never written must read as empty.
    ledger = file.create_dataset(
        Names.LEDGER, (capacity,), LEDGER_DTYPE, dcpl=_properties(h5py.h5d.FILL_TIME_ALLOC)
    )
    _attach(ledger, 0, _dimension(file, "ledger_entry", capacity))


def _properties(fill_time: int) -> Any:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)  # a modification time would be metadata that changes
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(fill_time)
    return properties


def _dimension(file: h5py.File, name: str, size: int) -> h5py.Dataset:
    # A scale of which nothing is ever written takes no space, however long.
    scale = file.create_dataset(name, (size,), ">f4")
    scale.make_scale(_DATALESS_SCALE % size)
    return scale


def _attach(target: h5py.Dataset, axis: int, scale: h5py.Dataset) -> None:
    target.dims[axis].attach_scale(scale)


def _write_table(
    file: h5py.File, name: str, dimension: str, tensors: tuple[TensorSpec, ...]
) -> None:
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
    table = file.create_dataset(name, data=np.array(entries, dtype=dtype))
    _attach(table, 0, _dimension(file, dimension, len(tensors)))


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
