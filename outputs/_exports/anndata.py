"""Export a sparse matrix to AnnData's HDF5, with the names of its rows and columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from outputs._format.axes import TensorSpec
from outputs._reading.sparse_result import SparseResult
from outputs._scanning.sequential import Advance
from outputs._storage.files import create_file

_NAMES_AT_ONCE = 2**16


def write(result: SparseResult, path: Path, advance: Advance) -> None:
    """Write ``X``, with ``obs`` and ``var`` named after the elements of the tensors: ``x[3]``.

    Args:
        result: A sparse result.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
    """
    with create_file(path) as file:
        _mark(file, "anndata", "0.1.0")
        group = file.create_group("X")
        _mark(group, "csr_matrix", "0.1.0")
        group.attrs["shape"] = np.array(result.shape, np.int64)
        itype, entries = result.index_dtype, result.entries
        arrays = {
            "data": group.create_dataset("data", (entries,), result.dtype),
            "indices": group.create_dataset("indices", (entries,), itype),
        }
        offsets = group.create_dataset("indptr", (result.shape[0] + 1,), itype)
        offsets[0] = done = 0
        for start, rows in result.ranges():
            height = len(rows.indptr) - 1
            for name, array in arrays.items():
                array[done : done + rows.nnz] = getattr(rows, name)
            offsets[start + 1 : start + height + 1] = done + rows.indptr[1:]
            done += rows.nnz
            file.require_written()
            advance(rows.data.nbytes)
        part = result.selection
        _names(file, "obs", part.whole_rows if part else result.rows, result.row_numbers)
        _names(file, "var", part.whole_columns if part else result.columns, result.column_numbers)


def _names(
    file: h5py.File, name: str, tensors: tuple[TensorSpec, ...], numbers: np.ndarray
) -> None:
    """Write a table without columns, whose index names each line after its tensor and element."""
    group = file.create_group(name)
    _mark(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", np.zeros(0), dtype=h5py.string_dtype())
    index = group.create_dataset("_index", (len(numbers),), h5py.string_dtype())
    _mark(index, "string-array", "0.2.0")
    starts = np.cumsum([0, *(tensor.size for tensor in tensors)])
    # A NUL would end the text.
    plain = [tensor.name.replace("\0", "\\x00") for tensor in tensors]
    for first in range(0, len(numbers), _NAMES_AT_ONCE):
        some = numbers[first : first + _NAMES_AT_ONCE]
        owners = np.searchsorted(starts, some, side="right") - 1
        pairs = zip(owners.tolist(), (some - starts[owners]).tolist(), strict=True)
        index[first : first + len(some)] = [f"{plain[owner]}[{place}]" for owner, place in pairs]


def _mark(target: Any, kind: str, version: str) -> None:
    target.attrs["encoding-type"], target.attrs["encoding-version"] = kind, version
