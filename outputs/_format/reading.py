"""Read the layout of a file: its attributes, tables, records and matrix, all validated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import Axis, Shard, TensorSpec
from outputs._format.description import (
    DIAGONAL,
    FULL,
    MATRICES,
    PRODUCTS,
    SYMMETRIC,
    Compression,
    ResultDescription,
    multiplied_shape,
)
from outputs._format.drawn_vectors import DrawnVectors
from outputs._format.names import (
    DRAWN,
    FORMAT,
    FORMAT_VERSION,
    LEDGER_DTYPE,
    OFFSETS,
    POINTS,
    PROBES,
    STRUCTURE,
    TABLE_FIELDS,
    VERSION_OF_RAGGED_FILES,
    VERSION_OF_SELECTIONS,
    VERSION_OF_SPARSE_FILES,
    VIRTUAL,
    WHOLE_TILE,
    Names,
)
from outputs._format.probes import Pairing, Probes, require_fitting
from outputs._format.ragged_matrices import RaggedMatrices, offsets_of, sizes_of
from outputs._format.selection import Selection
from outputs._format.stacked_matrices import Matrix, StackedMatrices
from outputs._format.validation import member, require_sound, scalar, whole

_MAX_TEXT_BYTES = 64 * 2**20


def is_sparse(file: h5py.File) -> bool:
    """Return whether a result holds a matrix in compressed rows."""
    version = scalar(file, "format_version")
    if version != VERSION_OF_SELECTIONS:
        return version == VERSION_OF_SPARSE_FILES
    operation = read_attribute(file, "operation")
    return operation in MATRICES and isinstance(member(file, operation), h5py.Group)


def is_ragged(file: h5py.File) -> bool:
    """Return whether a result holds matrices of many points of different sizes."""
    return scalar(file, "format_version") == VERSION_OF_RAGGED_FILES


def read_description(file: h5py.File) -> ResultDescription:
    """Read the description that a file was created with, including its arrays."""
    matrix = matrix_of(file)
    shard, tile, points = read_shard(file), matrix.chunks, read_points(file)
    if points is not None:
        tile = None
    elif shard is not None:
        extents = [int(scalar(file, name)) for name in WHOLE_TILE if name in file.attrs]
        tile = (extents[0], extents[1]) if len(extents) == len(WHOLE_TILE) else None
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
        selection=read_selection(file),
        is_ragged=is_ragged(file),
        drawn_vectors=read_drawn_vectors(file),
        structure=read_structure(file),
    )


def require_ours(file: h5py.File, path: Path) -> None:
    """Check that a file is a result of a version that this package reads.

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
    """Read a text attribute of the root group."""
    value = scalar(file, name)
    if not isinstance(value, str):
        raise ResultError(f"{file.filename} is damaged: its {name} is not a text.")
    return value


def matrix_of(file: h5py.File) -> Matrix:
    """Return the matrix, of shape (rows, columns); the matrices of many points are stacked."""
    operation = read_attribute(file, "operation")
    if operation not in MATRICES + PRODUCTS:
        raise ResultError(f"{file.filename} is damaged: {operation!r} is no operation.")
    matrix = dataset(file, operation, may_be_virtual=bool(file.attrs.get(VIRTUAL, 0)))
    if is_ragged(file):
        return _ragged(file, matrix)
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


def _ragged(file: h5py.File, entries: h5py.Dataset) -> RaggedMatrices:
    points, tables = read_points(file), [read_table(file, n) for n in (Names.ROWS, Names.COLUMNS)]
    if points is None or any(not table or len(table) % points for table in tables):
        raise ResultError(f"{file.filename} is damaged: its tables are not those of its points.")
    sizes = sizes_of(tables[0], tables[1], points)
    stored = dataset(file, OFFSETS)
    if stored.shape != (points + 1,) or not np.array_equal(whole(stored), offsets_of(*sizes)):
        raise ResultError(f"{file.filename} is damaged: its offsets do not fit its tables.")
    fits = entries.shape == (int(offsets_of(*sizes)[-1]),) and entries.chunks is None
    if not fits or entries.is_virtual or entries.dtype.kind not in "fciu":
        raise ResultError(f"{file.filename} is damaged: its entries do not fit its offsets.")
    return RaggedMatrices(entries, *sizes)


def read_points(file: h5py.File) -> int | None:
    """Read the number of points, each with a matrix of its own; None for a single point.

    Raises:
        ResultError: If the number is not a positive integer.
    """
    if POINTS not in file.attrs:
        return None
    points = scalar(file, POINTS)
    if not isinstance(points, int) or points < 1:
        raise ResultError(f"{file.filename} is damaged: {points!r} is no number of points.")
    return points


def read_structure(file: h5py.File) -> str:
    """Read which entries of its matrix a file holds: ``full`` or ``diagonal``.

    Raises:
        ResultError: If it contradicts the file.
    """
    if STRUCTURE not in file.attrs:
        return FULL
    structure = read_attribute(file, STRUCTURE)
    columns = [(each.name, each.shape) for each in read_table(file, Names.COLUMNS)]
    is_square = read_attribute(file, "operation") in SYMMETRIC
    if structure != DIAGONAL or columns != [(DIAGONAL, ())] or not is_square:
        raise ResultError(f"{file.filename} is damaged: it holds no {structure!r} of a matrix.")
    return structure


def axis_of(file: h5py.File) -> Axis:
    """Read the axis along which blocks arrive."""
    axis = read_attribute(file, "axis")
    if axis not in tuple(Axis):
        raise ResultError(f"{file.filename} is damaged: {axis!r} is no axis.")
    return Axis(axis)


def dataset(group: h5py.Group, name: str, *, may_be_virtual: bool = False) -> h5py.Dataset:
    """Return a dataset whose data are in the file itself, or are virtual if that is allowed.

    Raises:
        ResultError: If it is missing, stored elsewhere, or larger than the file.
    """
    found = member(group, name)
    if not isinstance(found, h5py.Dataset):
        raise ResultError(f"{group.file.filename} is damaged: {name!r} is no dataset.")
    if not (may_be_virtual and found.is_virtual):
        require_sound(found)
    return found


def group_of(file: h5py.File, name: str) -> h5py.Group:
    """Return a group that is in the file itself.

    Raises:
        ResultError: If it is missing or a link to another place.
    """
    found = member(file, name)
    if not isinstance(found, h5py.Group):
        raise ResultError(f"{file.filename} is damaged: {name!r} is no group.")
    return found


def ledger_of(file: h5py.File, lines: int) -> h5py.Dataset:
    """Return the ledger, of ``LEDGER_DTYPE`` and shape (lines,)."""
    table = dataset(file, Names.LEDGER)
    if table.dtype != LEDGER_DTYPE or table.shape != (lines,):
        raise ResultError(f"{file.filename} is damaged: its ledger does not fit its matrix.")
    return table


def read_table(file: h5py.File, name: str) -> tuple[TensorSpec, ...]:
    """Read the tensors of one axis, whose ranges are adjacent and start at 0.

    Raises:
        ResultError: If it is not a table of tensors, or contradicts itself.
    """
    table = dataset(file, name)
    if len(table.shape) != 1 or table.dtype.names != TABLE_FIELDS:
        raise ResultError(f"{file.filename} is damaged: {name} is no table of tensors.")
    tensors, stop = [], 0
    for entry in whole(table):
        shape = json.loads(entry["shape"])
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ResultError(f"{file.filename} is damaged: {name} holds an invalid shape.")
        tensor = TensorSpec(entry["name"].decode(), tuple(shape), entry["dtype"].decode())
        if (int(entry["start"]), int(entry["stop"])) != (stop, stop + tensor.size):
            raise ResultError(f"{file.filename} is damaged: the ranges of {name} have gaps.")
        stop += tensor.size
        tensors.append(tensor)
    return tuple(tensors)


def read_selection(file: h5py.File) -> Selection | None:
    """Read which lines of a larger matrix the file holds; None for a whole matrix.

    Raises:
        ResultError: If the numbers contradict themselves or the tables.
    """
    if file.get(Names.ROW_NUMBERS, getlink=True) is None:
        return None
    rows, columns = (
        whole(dataset(file, name)) for name in (Names.ROW_NUMBERS, Names.COLUMN_NUMBERS)
    )
    whole_rows, whole_columns, *axes = (
        read_table(file, name)
        for name in (Names.WHOLE_ROWS, Names.WHOLE_COLUMNS, Names.ROWS, Names.COLUMNS)
    )
    try:
        selection = Selection(rows, columns, whole_rows, whole_columns)
        selection.require_fitting(*axes)
    except ResultError as error:
        raise ResultError(f"{file.filename} is damaged: {error}") from error
    return selection


def read_drawn_vectors(file: h5py.File) -> DrawnVectors | None:
    """Read what the vectors of a product are drawn from; None if none are drawn.

    Raises:
        ResultError: If it contradicts itself or the matrix.
    """
    if file.get(Names.VECTOR_TENSORS, getlink=True) is None:
        return None
    group = group_of(file, Names.VECTORS)
    distribution, seed, count, scale = (scalar(group, name) for name in DRAWN)
    tensors = read_table(file, Names.VECTOR_TENSORS)
    rows = sum(tensor.size for tensor in read_table(file, Names.ROWS))
    if not (isinstance(seed, int) and isinstance(count, int)) or count != rows:
        raise ResultError(f"{file.filename} is damaged: its vectors do not fit its rows.")
    try:
        return DrawnVectors(str(distribution), seed, count, tensors, float(scale))
    except (ResultError, ValueError) as error:
        raise ResultError(f"{file.filename} is damaged: {error}") from error


def read_arrays(file: h5py.File, name: str) -> dict[str, np.ndarray]:
    """Read the arrays of ``point``, ``value`` or ``vectors``, by tensor name, in stored order."""
    return {key: whole(array) for key, array in stored_arrays(file, name).items()}


def stored_arrays(file: h5py.File, name: str) -> dict[str, h5py.Dataset]:
    """Return the datasets of the arrays that `read_arrays` reads."""
    group = group_of(file, name)
    arrays = {}
    for key in map(str, group):
        array = dataset(group, key)
        if array.dtype.kind not in "biufc":
            raise ResultError(f"{file.filename} is damaged: {name}/{key} holds no numbers.")
        arrays[Names.unescape(key)] = array
    return arrays


def read_shard(file: h5py.File) -> Shard | None:
    """Read which part of a matrix the file holds; None for a whole matrix.

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
    lines = axis_of(file).lines(matrix_of(file).shape)
    if shard.stop - shard.start != lines:
        raise ResultError(f"{file.filename} is damaged: its shard does not fit its matrix.")
    return shard


def whole_shape(file: h5py.File) -> tuple[int, int]:
    """Return the shape of the whole matrix, from the tables of its axes."""
    rows, columns = (
        sum(tensor.size for tensor in read_table(file, name))
        for name in (Names.ROWS, Names.COLUMNS)
    )
    if is_ragged(file):
        return matrix_of(file).shape
    return rows * (read_points(file) or 1), columns


def read_probes(file: h5py.File) -> Probes | None:
    """Read the probes of the whole matrix; None if the file has none.

    Raises:
        ResultError: If they contradict themselves or do not fit the matrix.
    """
    if file.get(Names.PROBES, getlink=True) is None:
        return None
    group = group_of(file, Names.PROBES)
    arrays = {name: whole(dataset(group, name)) if name in group else None for name in PROBES}
    tolerance, pairing = scalar(group, "tolerance"), scalar(group, "pairing")
    try:
        probes = Probes(
            **arrays,
            tolerance=float(tolerance),
            pairing=cast(Pairing, pairing),
            floor=float(scalar(group, "floor")) if "floor" in group.attrs else 0.0,
        )
        require_fitting(probes, multiplied_shape(whole_shape(file), read_structure(file)))
    except ResultError as error:
        raise ResultError(f"{file.filename} is damaged: {error}") from error
    return probes


def read_provenance(file: h5py.File) -> dict[str, str | int | float | bool]:
    """Read the provenance as plain Python values."""
    group = group_of(file, Names.PROVENANCE)
    return {name: scalar(group, name) for name in map(str, group.attrs)}


def read_text(file: h5py.File, name: str) -> str:
    """Read the text of a scalar fixed-length string."""
    text = dataset(file, name)
    if text.shape != () or text.dtype.kind != "S" or text.dtype.itemsize > _MAX_TEXT_BYTES:
        raise ResultError(f"{file.filename} is damaged: its {name} is not a text.")
    return bytes(text[()]).rstrip(b"\0").decode()


def read_execution(file: h5py.File) -> dict[str, Any]:
    """Read the execution record; empty before the result is finished."""
    record = json.loads(read_text(file, Names.EXECUTION) or "{}")
    if not isinstance(record, dict):
        raise ResultError(f"{file.filename} is damaged: its execution record is not a JSON object.")
    return record
