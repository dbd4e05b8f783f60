"""Compute the statistics of a matrix that a picture shows, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outputs._reading.presentation.protocols import ShownResult
from outputs._scanning.sequential import Advance, pieces
from outputs._storage.files import translated
from outputs._storage.regions import Region

_DECADES = 12


@dataclass(frozen=True)
class Survey:
    """Statistics of a matrix, by the cells of a coarse grid and by its lines.

    Attributes:
        magnitude: Largest absolute value in each cell, without NaN and Inf; float64 of shape (cells
            down, cells across).
        nonfinite: Whether a cell holds NaN or Inf; bool of the same shape.
        row_norms: Euclidean norms of the rows, float64 of shape (rows,).
        column_norms: Euclidean norms of the columns, float64 of shape (columns,).
        nonfinite_entries: Number of entries that are NaN or Inf.
        zero_entries: Number of entries that are zero.
    """

    magnitude: np.ndarray
    nonfinite: np.ndarray
    row_norms: np.ndarray
    column_norms: np.ndarray
    nonfinite_entries: int
    zero_entries: int


def survey(result: ShownResult, cells: int = 600, advance: Advance = lambda count: None) -> Survey:
    """Read a matrix once and return its statistics.

    Args:
        result: A complete result.
        cells: Maximum number of cells along an axis; a shorter axis has one cell for each entry.
        advance: Called with the number of bytes of each piece read.
    """
    rows, columns = result.matrix_shape
    down, across = min(rows, cells), min(columns, cells)
    magnitude = np.zeros((down, across))
    nonfinite = np.zeros((down, across), bool)
    row_squares, column_squares = np.zeros(rows), np.zeros(columns)
    bad = zeros = 0
    with translated(result.path):
        for (r, c), values in pieces(result.matrix()):
            size = magnitudes(values)
            finite = np.isfinite(size)
            zeros += int(size.size - np.count_nonzero(size))
            bad += int(finite.size - np.count_nonzero(finite))
            size[~finite] = 0
            raise_cells(magnitude, size, (r, c), result.matrix_shape)
            raise_cells(nonfinite, ~finite, (r, c), result.matrix_shape)
            with np.errstate(over="ignore"):
                row_squares[r] += np.einsum("ij,ij->i", size, size)
                column_squares[c] += np.einsum("ij,ij->j", size, size)
            advance(values.nbytes)
    return Survey(magnitude, nonfinite, np.sqrt(row_squares), np.sqrt(column_squares), bad, zeros)


def magnitudes(values: np.ndarray) -> np.ndarray:
    """Return the absolute values as a new array of float64."""
    if values.dtype.kind == "c":
        return np.abs(values).astype(np.float64, copy=False)
    # Converted first: the least integer of a dtype has no absolute value in it.
    size = values.astype(np.float64)
    return np.abs(size, out=size)


def least_shown(magnitude: np.ndarray, largest: float) -> float:
    """Return the lower end of the colour scale: one to twelve decades below the largest entry."""
    least = float(magnitude[magnitude > 0].min())
    return min(max(least, largest * 10.0**-_DECADES), largest / 10)


def raise_cells(
    grid: np.ndarray, values: np.ndarray, region: Region, shape: tuple[int, int]
) -> None:
    """Raise the cells of a grid over the matrix to the largest value of a region in each."""
    places = []
    for axis, (part, length, cells) in enumerate(zip(region, shape, grid.shape, strict=True)):
        cell = np.arange(part.start, part.stop) * cells // length
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        values = np.maximum.reduceat(values, first, axis=axis)
        places.append(cell[first])
    place = np.ix_(*places)
    grid[place] = np.maximum(grid[place], values)
