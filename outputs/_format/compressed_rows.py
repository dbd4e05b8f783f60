"""Check the index arrays of compressed rows before any compiled code uses them as addresses."""

from __future__ import annotations

import numpy as np


def problem_of_offsets(indptr: np.ndarray, entries: int, *, first: int = 0) -> str:
    """Return what is wrong with the offsets of adjacent rows, or an empty text.

    SciPy believes its index arrays: one number outside of the matrix makes it read and write
    outside of its memory.

    Args:
        indptr: Offsets of the rows and of their end, of shape (rows + 1,).
        entries: The last offset of a whole matrix, or the largest valid one of a part.
        first: The first offset.
    """
    if indptr.ndim != 1 or not len(indptr) or indptr.dtype.kind not in "iu":
        return "indptr is no list of whole numbers"
    # Comparisons, because differences of unsigned numbers and of extreme ones wrap around.
    if int(indptr[0]) != first or bool((indptr[1:] < indptr[:-1]).any()):
        return "indptr does not start where its first row does, or descends"
    return "" if int(indptr[-1]) <= entries else "indptr is not within the entries"


def problem_of_columns(indptr: np.ndarray, indices: np.ndarray, columns: int) -> str:
    """Return what is wrong with the columns of the entries of rows, or an empty text.

    Args:
        indptr: Sound offsets of the rows, of shape (rows + 1,); the first is that of ``indices``.
        indices: Columns of the entries, of shape (entries,).
        columns: Number of columns of the matrix.
    """
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        return "indices are no list of whole numbers"
    if not len(indices):
        return ""
    if int(indices.min()) < 0 or int(indices.max()) >= columns:
        return f"indices are not within the {columns} columns"
    ascends = indices[1:] > indices[:-1]
    starts = indptr[1:-1] - indptr[0]
    # An entry that starts a row may have any column.
    ascends[starts[(starts > 0) & (starts < len(indices))] - 1] = True
    return "" if bool(ascends.all()) else "the columns of a row do not ascend"
