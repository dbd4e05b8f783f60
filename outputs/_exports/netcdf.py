"""Export to netCDF-4.

Imports h5netcdf, so this module is imported only when a result is exported to netCDF.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np

from outputs._reading.views.metadata import attributes, flat_variables
from outputs._reading.views.protocol import DenseResult
from outputs._scanning.sequential import Advance, piece_shape, pieces
from outputs._storage.written_files import NEW, DeferringFile

_CHUNK_BYTES = 2 * 2**20


def write(result: DenseResult, path: Path, advance: Advance) -> None:
    """Write the variables of ``as_xarray()``, under the same names and dimensions.

    netCDF has neither complex numbers, which become two variables ``<name>_real`` and
    ``<name>_imag``, nor half floats, which become float32.

    Args:
        result: A complete result.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
    """
    matrix = result.dataset()
    chunk = piece_shape(matrix, _CHUNK_BYTES)
    with DeferringFile(path, NEW) as stored, h5netcdf.File(stored, "w") as file:
        # A text of netCDF ends at a NUL.
        for name, value in attributes(result).items():
            file.attrs[name] = value.replace("\0", "\\x00") if isinstance(value, str) else value
        variables = flat_variables(result)
        whole = {name for name, (_, values) in variables.items() if not np.iscomplexobj(values)}
        for name, (dimensions, values) in variables.items():
            for variable, part in _parts(name, values):
                # A tensor may have the name of a part of another.
                while variable != name and variable in whole:
                    variable += "_"
                _create(file, variable, dimensions, part.shape, part.dtype)[...] = part
        targets = [
            _create(file, name, ("row", "column"), result.shape, part.dtype, chunk)
            for name, part in _parts(result.operation, np.empty((0, 0), result.dtype))
        ]
        for region, values in pieces(matrix, chunk):
            for target, (_, part) in zip(targets, _parts("", values), strict=True):
                target[region] = part
            stored.require_written()
            advance(values.nbytes)


def _parts(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the variables that hold an array: the array, or its real and imaginary parts."""
    if np.iscomplexobj(values):
        return [(f"{name}_real", np.real(values)), (f"{name}_imag", np.imag(values))]
    if values.dtype.kind == "U":
        return [(name, values.astype(object))]
    narrow = {np.dtype(np.float16): np.float32, np.dtype(np.bool_): np.int8}
    return [(name, values.astype(narrow.get(values.dtype, values.dtype), copy=False))]


def _create(
    file: h5netcdf.File,
    name: str,
    dimensions: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: np.dtype,
    chunk: tuple[int, int] | None = None,
) -> Any:
    for dimension, size in zip(dimensions, shape, strict=True):
        if dimension not in file.dimensions:
            file.dimensions[dimension] = size
    stored: Any = h5py.string_dtype() if dtype.kind == "O" else dtype
    if chunk is None or 0 in shape:
        return file.create_variable(name, dimensions, stored)
    chunks = tuple(min(c, n) for c, n in zip(chunk, shape, strict=True))
    return file.create_variable(name, dimensions, stored, chunks=chunks)
