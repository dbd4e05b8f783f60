"""Export a sparse matrix to MATLAB's MAT-file version 7.3."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from outputs._exports.mat import USER_BLOCK, header
from outputs._reading.sparse_result import SparseResult
from outputs._scanning.sequential import Advance
from outputs._storage.files import create_file


def write(result: SparseResult, path: Path, advance: Advance) -> None:
    """Write the matrix under the name of its operation, in compressed columns, as MATLAB keeps it.

    MATLAB's sparse matrices are in double precision. The entries are sorted by columns in memory.

    Args:
        result: A sparse result.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
    """
    wide = np.complex128 if result.dtype.kind == "c" else np.float64
    columns = result.as_scipy().astype(wide).tocsc()
    columns.sort_indices()
    with create_file(path, user_block=USER_BLOCK) as file:
        group = file.create_group(result.operation)
        group.attrs["MATLAB_class"] = np.bytes_("double")
        group.attrs["MATLAB_sparse"] = np.uint64(result.shape[0])
        group.create_dataset("jc", data=columns.indptr.astype(np.uint64))
        # MATLAB leaves out the arrays of a matrix without entries.
        if columns.nnz:
            data = columns.data
            if wide is np.complex128:
                data = data.view([("real", np.float64), ("imag", np.float64)])
            group.create_dataset("data", data=data)
            group.create_dataset("ir", data=columns.indices.astype(np.uint64))
        advance(columns.nnz * result.dtype.itemsize)
    with open(path, "r+b") as raw:
        raw.write(header())
