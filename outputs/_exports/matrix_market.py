"""Export a sparse matrix to the text of Matrix Market."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from outputs._reading.sparse_result import SparseResult
from outputs._scanning.sequential import Advance

_LINES = 100_000


def write(result: SparseResult, path: Path, advance: Advance) -> None:
    """Write the coordinate format, row after row; rows and columns count from 1.

    Numbers have as many digits as it takes to read the same ones.

    Args:
        result: A sparse result.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
    """
    is_complex = result.dtype.kind == "c"
    with open(path, "x", encoding="ascii") as file:
        field = "complex" if is_complex else "real"
        file.write(f"%%MatrixMarket matrix coordinate {field} general\n")
        file.write(f"{result.shape[0]} {result.shape[1]} {result.entries}\n")
        for start, rows in result.ranges():
            counts = np.diff(rows.indptr)
            places = np.repeat(np.arange(start, start + len(counts)), counts)
            for first in range(0, rows.nnz, _LINES):
                part = slice(first, first + _LINES)
                values: np.ndarray = rows.data[part]
                texts = map(repr, np.real(values).tolist())
                if is_complex:
                    parts = zip(texts, map(repr, np.imag(values).tolist()), strict=True)
                    texts = map(" ".join, parts)
                lines = zip(
                    (places[part] + 1).tolist(),
                    (rows.indices[part] + 1).tolist(),
                    texts,
                    strict=True,
                )
                file.writelines(f"{row} {column} {text}\n" for row, column, text in lines)
                advance(values.nbytes)
