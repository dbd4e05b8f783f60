"""Read the layout of a file: its attributes, tables, records and matrix, all validated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import Axis, Shard
from outputs._format.description import (
    BLOCKS,
    DIAGONAL,
    FULL,
    MATRICES,
    PRODUCTS,
    SYMMETRIC,
    Compression,
    ResultDescription,
    are_groups_of,
    multiplied_shape,
)
from outputs._format.drawn_vectors import DrawnVectors
from outputs._format.names import (
    DRAWN,
    FORMAT,
    FORMAT_VERSION,
    GROUPS,
    LEDGER_DTYPE,
    OFFSETS,
    POINTS,
    PROBES,
    STRUCTURE,
    VERSION_OF_BLOCKS,
    VERSION_OF_RAGGED_FILES,
    VERSION_OF_RAGGED_SELECTIONS,
    VERSION_OF_SELECTIONS,
    VERSION_OF_SPARSE_FILES,
    VIRTUAL,
    WHOLE_TILE,
    Names,
)
from outputs._format.probes import Pairing, Probes, require_fitting
from outputs._format.ragged_matrices import (
    RaggedMatrices,
    Sizes,
    offsets_of,
    sizes_of,
    sizes_of_groups,
)
from outputs._format.selection import Selection
from outputs._format.stacked_matrices import Matrix, StackedMatrices
from outputs._format.tables import dataset, group_of, read_attribute, read_table
from outputs._format.validation import member, scalar, whole

_MAX_TEXT_BYTES = 64 * 2**20


def is_sparse(file: h5py.File) -> bool:
    """Return whether a result holds a matrix in compressed rows."""
    version = scalar(file, "format_version")
    if version != VERSION_OF_SELECTIONS:
        return version == VERSION_OF_SPARSE_FILES
    operation = read_attribute(file, "operation")
    return operation in MATRICES and isinstance(member(file, operation), h5py.Group)


def is_ragged(file: h5py.File) -> bool:
    """Return whether a result holds matrices of different sizes, of points or diagonal blocks."""
    versions = (VERSION_OF_RAGGED_FILES, VERSION_OF_BLOCKS, VERSION_OF_RAGGED_SELECTIONS)
    return scalar(file, "format_version") in versions


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
        groups=read_groups(file),
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
    sizes = _sizes(file)
    stored = dataset(file, OFFSETS)
    if stored.shape != (len(sizes[0]) + 1,) or not np.array_equal(
        whole(stored), offsets_of(*sizes)
    ):
        raise ResultError(f"{file.filename} is damaged: its offsets do not fit its tables.")
    fits = entries.shape == (int(offsets_of(*sizes)[-1]),) and entries.chunks is None
    if not fits or entries.is_virtual or entries.dtype.kind not in "fciu":
        raise ResultError(f"{file.filename} is damaged: its entries do not fit its offsets.")
    return RaggedMatrices(entries, *sizes)


def _sizes(file: h5py.File) -> Sizes:
    names, points = [Names.ROWS, Names.COLUMNS], read_points(file)
    if file.get(Names.ROW_NUMBERS, getlink=True) is not None:
        names += [Names.WHOLE_ROWS, Names.WHOLE_COLUMNS]
    tables = [read_table(file, name) for name in names]
    if groups := read_groups(file):
        return sizes_of_groups(tables[0], groups)
    if points is None or any(not table or len(table) % points for table in tables):
        raise ResultError(f"{file.filename} is damaged: its tables are not those of its points.")
    return sizes_of(tables[0], tables[1], points)


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
    """Read which entries of its matrix a file holds: ``full``, ``diagonal`` or ``blocks``.

    Raises:
        ResultError: If it contradicts the file.
    """
    if STRUCTURE not in file.attrs:
        return FULL
    structure = read_attribute(file, STRUCTURE)
    columns = [(each.name, each.shape) for each in read_table(file, Names.COLUMNS)]
    is_square = read_attribute(file, "operation") in SYMMETRIC
    is_of_blocks = scalar(file, "format_version") == VERSION_OF_BLOCKS
    fits = {DIAGONAL: not is_of_blocks and columns == [(DIAGONAL, ())], BLOCKS: is_of_blocks}
    if not fits.get(structure) or not is_square:
        raise ResultError(f"{file.filename} is damaged: it holds no {structure!r} of a matrix.")
    return structure


def read_groups(file: h5py.File) -> tuple[int, ...]:
    """Read how many tensors each diagonal block has; empty where there are no such blocks.

    Raises:
        ResultError: If the numbers do not fit the tables, or there are points.
    """
    if scalar(file, "format_version") != VERSION_OF_BLOCKS:
        return ()
    stored = dataset(file, GROUPS)
    rows, columns = (read_table(file, name) for name in (Names.ROWS, Names.COLUMNS))
    is_of_numbers = len(stored.shape) == 1 and stored.dtype.kind == "i"
    groups = tuple(whole(stored).tolist()) if is_of_numbers else ()
    fits = are_groups_of(rows, groups) and rows == columns
    if not fits or read_structure(file) != BLOCKS or POINTS in file.attrs:
        raise ResultError(f"{file.filename} is damaged: its groups do not fit its tables.")
    return groups


def axis_of(file: h5py.File) -> Axis:
    """Read the axis along which blocks arrive."""
    axis = read_attribute(file, "axis")
    if axis not in tuple(Axis):
        raise ResultError(f"{file.filename} is damaged: {axis!r} is no axis.")
    return Axis(axis)


def ledger_of(file: h5py.File, lines: int) -> h5py.Dataset:
    """Return the ledger, of ``LEDGER_DTYPE`` and shape (lines,)."""
    table = dataset(file, Names.LEDGER)
    if table.dtype != LEDGER_DTYPE or table.shape != (lines,):
        raise ResultError(f"{file.filename} is damaged: its ledger does not fit its matrix.")
    return table


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
