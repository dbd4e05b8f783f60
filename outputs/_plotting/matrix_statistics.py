"""What a picture of a matrix shows, gathered while the matrix streams by once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from outputs._scanning.sequential import pieces
from outputs._storage.files import translated

if TYPE_CHECKING:
    from outputs._reading.result import Result


@dataclass(frozen=True)
class Survey:
    """A matrix seen from afar.

    Attributes:
        magnitude: Largest absolute value in each cell, without NaN and Inf; float64 of shape (cells
            down, cells across).
        nonfinite: Whether a cell holds NaN or Inf; bool of the same shape.
        row_norms: Euclidean norms, float64 of shape (rows,).
        column_norms: Euclidean norms, float64 of shape (columns,).
        nonfinite_entries: Number of NaN and Inf.
        zero_entries: Number of zeros.
    """

    magnitude: np.ndarray
    nonfinite: np.ndarray
    row_norms: np.ndarray
    column_norms: np.ndarray
    nonfinite_entries: int
    zero_entries: int


def survey(
    result: Result, cells: int = 600, advance: Callable[[int], None] = lambda count: None
) -> Survey:
    """Reads a matrix once.

    Args:
        result: A complete result.
        cells: Cells along an axis at most; a shorter axis has one cell an entry.
        advance: Told the bytes of every piece.
    """
    rows, columns = result.matrix_shape
    down, across = min(rows, cells), min(columns, cells)
    magnitude = np.zeros((down, across))
    nonfinite = np.zeros((down, across), bool)
    row_squares, column_squares = np.zeros(rows), np.zeros(columns)
    bad = zeros = 0
    with translated(result.path):
        for (r, c), values in pieces(result.matrix()):
            size = np.abs(values).astype(np.float64, copy=False)
            finite = np.isfinite(size)
            zeros += int(size.size - np.count_nonzero(size))
            bad += int(finite.size - np.count_nonzero(finite))
            size[~finite] = 0
            _into(magnitude, size, (r, c), result.matrix_shape)
            _into(nonfinite, ~finite, (r, c), result.matrix_shape)
            with np.errstate(over="ignore"):
                row_squares[r] += np.einsum("ij,ij->i", size, size)
                column_squares[c] += np.einsum("ij,ij->j", size, size)
            advance(values.nbytes)
    return Survey(magnitude, nonfinite, np.sqrt(row_squares), np.sqrt(column_squares), bad, zeros)


def _into(
    grid: np.ndarray, values: np.ndarray, region: tuple[slice, slice], shape: tuple[int, int]
) -> None:
    places = []
    for axis, (part, length, cells) in enumerate(zip(region, shape, grid.shape, strict=True)):
        cell = np.arange(part.start, part.stop) * cells // length
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        values = np.maximum.reduceat(values, first, axis=axis)
        places.append(cell[first])
    place = np.ix_(*places)
    grid[place] = np.maximum(grid[place], values)
