"""Compare two results of the same derivative entry by entry, without loading either."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from outputs._errors import ResultError
from outputs._reading.result import Result
from outputs._reading.sparse_result import SparseResult
from outputs._scanning.sequential import piece_shape, pieces
from outputs._storage.files import translated

_PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Difference:
    """The largest difference between two matrices.

    Attributes:
        largest: The largest magnitude of a difference of two entries.
        relative: The same relative to the largest magnitude of an entry of either; 0 if the
            matrices are equal, infinite if only one of two entries is finite somewhere.
        place: Row and column of the largest difference; None if the matrices are equal.
    """

    largest: float
    relative: float
    place: tuple[int, int] | None


def compare_results(first: Result, second: Result) -> Difference:
    """Compare two matrices entry by entry, reading each byte of the first once.

    Entries that are NaN in both, or the same infinity in both, are equal.

    Args:
        first: A complete result.
        second: Another complete result, of the same shape; its dtype may differ.

    Raises:
        ResultError: If the shapes differ, or a file is incomplete or damaged.
    """
    _require_one_shape(first, second)
    _require_one_selection(first, second)
    # HDF5 reads a tile whole even for a part of it, so the pieces follow the tiled matrix's tiles.
    leader, other = (second, first) if first.tile is None else (first, second)
    matrix = leader.matrix()
    largest, size, place = 0.0, 0.0, None
    with translated(leader.path), translated(other.path), np.errstate(all="ignore"):
        for region, values in pieces(matrix, piece_shape(matrix, _PIECE_BYTES)):
            difference, magnitude = _differences(values, other.matrix()[region])
            size = max(size, magnitude)
            found = float(difference.max(initial=0.0))
            if found > largest:
                row, column = np.unravel_index(int(difference.argmax()), difference.shape)
                place = (region[0].start + int(row), region[1].start + int(column))
                largest = found
    relative = 0.0 if largest == 0 else largest / size if math.isfinite(largest) else math.inf
    return Difference(largest, relative, place)


def _differences(values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the magnitudes of the differences, and the largest finite magnitude of an entry."""
    wide = np.result_type(values, others, np.float64)
    values, others = values.astype(wide), others.astype(wide)
    sizes = np.maximum(np.abs(values), np.abs(others))
    finite = np.isfinite(values) & np.isfinite(others)
    same = (values == others) | (np.isnan(values) & np.isnan(others))
    difference = np.where(finite, np.abs(values - others), np.where(same, 0.0, np.inf))
    return difference, float(sizes[finite].max(initial=0.0))


def _require_one_selection(first: Result | SparseResult, second: Result | SparseResult) -> None:
    if first.structure != second.structure:
        raise ResultError(
            f"{first.path} holds the {first.structure} matrix and {second.path} the "
            f"{second.structure}; only those of one structure can be compared."
        )
    if first.tensors_of_blocks != second.tensors_of_blocks:
        raise ResultError(
            f"{first.path} and {second.path} hold other diagonal blocks; only the same ones can be "
            "compared."
        )
    for name in ("row_numbers", "column_numbers"):
        if not np.array_equal(getattr(first, name), getattr(second, name)):
            raise ResultError(
                f"{first.path} and {second.path} hold other rows or columns; only those of "
                "the same lines can be compared."
            )


def _require_one_shape(first: Result | SparseResult, second: Result | SparseResult) -> None:
    if first.shape != second.shape:
        raise ResultError(
            f"{first.path} is {' x '.join(map(str, first.shape))} and {second.path} is "
            f"{' x '.join(map(str, second.shape))}; only matrices of one shape can be compared."
        )


def compare_sparse_results(first: SparseResult, second: SparseResult) -> Difference:
    """Compare two sparse matrices, range by range; an entry missing from one is zero there.

    Args:
        first: A sparse result.
        second: Another sparse result, of the same shape; its pattern may differ.

    Raises:
        ResultError: If the shapes differ, or a file is damaged.
    """
    _require_one_shape(first, second)
    _require_one_selection(first, second)
    largest, size, place = 0.0, 0.0, None
    for start, rows in first.ranges():
        others = second.row_range(start, start + len(rows.indptr) - 1)
        size = max(size, _magnitude(rows.data), _magnitude(others.data))
        difference = abs(rows - others).tocoo()
        values = np.where(np.isnan(difference.data), np.inf, difference.data)
        if values.size and values.max() > largest:
            worst = int(values.argmax())
            largest = float(values[worst])
            place = start + int(difference.row[worst]), int(difference.col[worst])
    relative = math.inf if math.isinf(largest) else largest / size if size else 0.0
    return Difference(largest, relative if largest else 0.0, place)


def _magnitude(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0))
