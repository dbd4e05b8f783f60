"""Export a sparse matrix to the archive that ``scipy.sparse.load_npz`` reads."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from outputs._reading.sparse_result import SparseResult
from outputs._scanning.sequential import Advance


def write(result: SparseResult, path: Path, advance: Advance) -> None:
    """Write the members of ``scipy.sparse.save_npz`` for a csr_array, not compressed.

    Args:
        result: A sparse result.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
    """
    itype = result.index_dtype
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        _array(archive, "indices", itype, result.entries, (r.indices for _, r in result.ranges()))
        _array(archive, "indptr", itype, result.shape[0] + 1, _offsets(result))
        _single(archive, "format", np.array(b"csr"))
        _single(archive, "shape", np.array(result.shape, np.int64))
        data = _advanced((rows.data for _, rows in result.ranges()), advance)
        _array(archive, "data", result.dtype, result.entries, data)
        _single(archive, "_is_array", np.array(True))


def _offsets(result: SparseResult) -> Iterable[np.ndarray]:
    done = 0
    yield np.zeros(1, np.int64)
    for _, rows in result.ranges():
        yield done + rows.indptr[1:].astype(np.int64)
        done += rows.nnz


def _advanced(parts: Iterable[np.ndarray], advance: Advance) -> Iterable[np.ndarray]:
    for part in parts:
        yield part
        advance(part.nbytes)


def _array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype,
    length: int,
    parts: Iterable[np.ndarray],
) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (length,),
    }
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts:
            member.write(np.ascontiguousarray(part, dtype).data.cast("B"))


def _single(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, values, allow_pickle=False)
