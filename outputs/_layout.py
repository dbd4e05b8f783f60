"""Where everything stands in the file: the names, and a description written and read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import h5py
import numpy as np

from outputs._description import Axis, Compression, ResultDescription, TensorSpec
from outputs._errors import ResultError
from outputs._files import create_file

FORMAT = "autodiff-jobs"
FORMAT_VERSION = 1

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

_EXECUTION_BYTES = 256 * 1024
_TILE_BYTES = 2 * 2**20
_TILE_LINES = 16
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
    ROW = "row"
    COLUMN = "column"

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


def tile_shape(shape: tuple[int, int], itemsize: int, axis: Axis) -> tuple[int, int]:
    """The tile for blocks that arrive along ``axis``: few lines, long across, 2 MiB at most.

    Extents divide the matrix evenly, because HDF5 stores the tiles at its edge whole.

    Args:
        shape: Shape of the matrix, without a zero.
        itemsize: Bytes an entry.
        axis: The axis along which blocks arrive.
    """
    lines, across = shape if axis == "rows" else shape[::-1]
    across = _even_part(across, _TILE_BYTES // (min(lines, _TILE_LINES) * itemsize), multiple=1)
    lines = _even_part(lines, _TILE_BYTES // (across * itemsize), multiple=_TILE_LINES)
    return (lines, across) if axis == "rows" else (across, lines)


def _even_part(length: int, limit: int, multiple: int) -> int:
    parts = -(-length // limit)
    part = -(-length // parts)
    return min(length, -(-part // multiple) * multiple)


def create(path: Path, description: ResultDescription, *, packed: bool = False) -> None:
    """Lays a result out completely and closes it.

    Args:
        path: A file that does not exist yet.
        description: What the file holds.
        packed: False for a matrix whose whole space is allocated now; True for one whose
            compressed tiles are allocated as they are written.

    Raises:
        ResultError: If the file cannot be created.
    """
    with create_file(path) as file:
        _write_header(file, description)
        matrix = _create_matrix(file, description, packed=packed)
        rows, columns = description.shape
        _attach(matrix, 0, _dimension(file, Names.ROW, rows))
        _attach(matrix, 1, _dimension(file, Names.COLUMN, columns))
        _write_table(file, Names.ROWS, "row_tensor", description.rows)
        _write_table(file, Names.COLUMNS, "column_tensor", description.columns)
        for group, arrays in (
            (Names.POINT, description.point),
            (Names.VALUE, description.value),
            (Names.VECTORS, description.vectors),
        ):
            _write_arrays(file.create_group(group, track_order=True), arrays)
        _write_text(file, Names.CONFIGURATION, description.configuration.encode())
        file.create_group(Names.PROVENANCE).attrs.update(description.provenance)
        _write_text(file, Names.EXECUTION, b"", _EXECUTION_BYTES)
        _create_ledger(file, description.lines)


def read_description(file: h5py.File) -> ResultDescription:
    """The description that a file was created with; its arrays are read into memory."""
    attributes: dict[str, Any] = dict(file.attrs)
    matrix = matrix_of(file)
    return ResultDescription(
        operation=attributes["operation"],
        strategy=attributes["strategy"],
        function=attributes["function"],
        fingerprint=attributes["fingerprint"],
        axis=axis_of(file),
        rows=read_table(file, Names.ROWS),
        columns=read_table(file, Names.COLUMNS),
        dtype=matrix.dtype.name,
        rows_are_tuple=bool(attributes["rows_are_tuple"]),
        columns_are_tuple=bool(attributes["columns_are_tuple"]),
        point=read_arrays(file, Names.POINT),
        value=read_arrays(file, Names.VALUE),
        vectors=read_arrays(file, Names.VECTORS),
        configuration=read_text(file, Names.CONFIGURATION),
        provenance=read_provenance(file),
        tile=matrix.chunks,
        compression=cast(Compression, attributes["compression"]),
    )


def require_ours(file: h5py.File, path: Path) -> None:
    """Checks that a file is a result of a version that this package reads.

    Raises:
        ResultError: If it is another kind of file, or of a newer format version.
    """
    if file.attrs.get("format") != FORMAT:
        raise ResultError(f"{path} is an HDF5 file, but not a result of {FORMAT}.")
    version = int(cast(Any, file.attrs["format_version"]))
    if version > FORMAT_VERSION:
        raise ResultError(
            f"{path} has format version {version}; this installation reads versions up to "
            f"{FORMAT_VERSION}."
        )


def matrix_of(file: h5py.File) -> h5py.Dataset:
    """The matrix, of shape (rows, columns)."""
    return dataset(file, cast(str, file.attrs["operation"]))


def axis_of(file: h5py.File) -> Axis:
    """The axis along which blocks arrive."""
    return cast(Axis, file.attrs["axis"])


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that every result has."""
    return cast(h5py.Dataset, file[name])


def read_table(file: h5py.File, name: str) -> tuple[TensorSpec, ...]:
    """The tensors of one axis."""
    return tuple(
        TensorSpec(
            entry["name"].decode(),
            tuple(json.loads(entry["shape"])),
            entry["dtype"].decode(),
        )
        for entry in dataset(file, name)[()]
    )


def read_arrays(file: h5py.File, name: str) -> dict[str, np.ndarray]:
    """The arrays of ``point``, ``value`` or ``vectors``, by tensor name, in stored order."""
    group = cast(h5py.Group, file[name])
    return {
        Names.unescape(str(key)): np.asarray(cast(h5py.Dataset, array)[()])
        for key, array in group.items()
    }


def read_provenance(file: h5py.File) -> dict[str, str | int | float | bool]:
    """The provenance as plain Python values."""
    attributes = file[Names.PROVENANCE].attrs
    return {
        name: value.item() if isinstance(value, np.generic) else cast(Any, value)
        for name, value in attributes.items()
    }


def read_text(file: h5py.File, name: str) -> str:
    """The text of a scalar fixed-length string."""
    return bytes(dataset(file, name)[()]).rstrip(b"\0").decode()


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
    return json.loads(read_text(file, Names.EXECUTION) or "{}")


def _write_header(file: h5py.File, description: ResultDescription) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    for name in ("operation", "strategy", "function", "fingerprint", "axis", "compression"):
        file.attrs[name] = getattr(description, name)
    # Numbers, because HDF5 has no boolean and readers differ on h5py's enumeration.
    file.attrs["rows_are_tuple"] = int(description.rows_are_tuple)
    file.attrs["columns_are_tuple"] = int(description.columns_are_tuple)


def _create_matrix(
    file: h5py.File, description: ResultDescription, *, packed: bool
) -> h5py.Dataset:
    shape, dtype = description.shape, np.dtype(description.dtype)
    tile = None
    if 0 not in shape:  # HDF5 has no tiles of an empty dataset
        tile = description.tile
        # Measured: row blocks go faster into contiguous space than into any tile, and it needs
        # no index; compressed data and column blocks need tiles.
        if tile is None and (packed or description.axis == "columns"):
            tile = tile_shape(shape, dtype.itemsize, description.axis)
    properties = _properties(h5py.h5d.FILL_TIME_NEVER)
    if tile is not None:
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


def _write_arrays(group: h5py.Group, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        group.create_dataset(Names.escape(name), data=np.asarray(array))


def _write_text(file: h5py.File, name: str, text: bytes, capacity: int = 0) -> None:
    dtype = h5py.string_dtype("utf-8", max(1, capacity, len(text)))
    target = file.create_dataset(name, (), dtype, dcpl=_properties(h5py.h5d.FILL_TIME_ALLOC))
    target[()] = np.array(text, dtype=dtype)
