"""Iterate over a matrix of any size in pieces, reading each byte once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from outputs._format.stacked_matrices import Matrix
from outputs._storage.regions import Region

Order = Literal["C", "F"]
Advance = Callable[[int], None]
"""Reports progress: called with the number of bytes of each piece that has been processed."""

# Measured (tiles of 4000 x 80 float64): a product takes 40 ms tile by tile and 160 ms by rectangles
# of six tiles, which HDF5 assembles from short runs. So only small tiles are grouped.
_PIECE_BYTES = 4 * 2**20
_BAND_BYTES = 64 * 2**20


def piece_shape(matrix: Matrix, limit: int = _PIECE_BYTES) -> tuple[int, int]:
    """Return the extents in which to read a matrix: bands of rows, or whole tiles.

    Args:
        matrix: The matrix, of shape (rows, columns).
        limit: Maximum bytes of a piece; a single tile may be larger, because HDF5 reads it whole.
    """
    columns = max(1, matrix.shape[1])
    entries = max(1, limit // matrix.dtype.itemsize)
    if matrix.chunks is None:
        width = min(columns, entries)
        return min(max(1, matrix.shape[0]), max(1, entries // width)), width
    height, width = matrix.chunks
    width *= max(1, min(-(-columns // width), entries // (height * width)))
    height *= max(1, min(-(-matrix.shape[0] // height), entries // (height * width)))
    return height, width


def pieces(
    matrix: Matrix, shape: tuple[int, int] | None = None
) -> Iterator[tuple[Region, np.ndarray]]:
    """Yield all entries once, as (region, values) in order of rows, then columns.

    Args:
        matrix: The matrix, of shape (rows, columns).
        shape: Extents of a piece, clipped at the edge; None for those of ``piece_shape``.
    """
    height, width = shape or piece_shape(matrix)
    for top in range(0, matrix.shape[0], height):
        for left in range(0, matrix.shape[1], width):
            region = (
                slice(top, min(top + height, matrix.shape[0])),
                slice(left, min(left + width, matrix.shape[1])),
            )
            yield region, matrix[region]


def sequential_order(matrix: Matrix) -> Order:
    """Return the order in which streaming the entries in whole tiles needs the least memory."""
    if matrix.chunks is None:
        return "C"
    (rows, columns), (height, width) = matrix.shape, matrix.chunks
    return "C" if height * columns <= width * rows else "F"


def bands(matrix: Matrix, order: Order, limit: int = _BAND_BYTES) -> Iterator[np.ndarray]:
    """Yield the entries in order: bands of whole rows (``C``) or of whole columns (``F``).

    A band is as thick as a tile. If that is more than ``limit`` bytes, it is thinner, down to
    one line, and tiles are read more than once: the memory limit takes precedence over speed.

    Args:
        matrix: The matrix, of shape (rows, columns).
        order: ``C`` or ``F``.
        limit: Maximum bytes of a band; a single line may exceed it.
    """
    axis = 0 if order == "C" else 1
    line = max(1, matrix.shape[1 - axis] * matrix.dtype.itemsize)
    thick = max(1, limit // line)
    if matrix.chunks is not None and thick > matrix.chunks[axis]:
        thick -= thick % matrix.chunks[axis]
    for start in range(0, matrix.shape[axis], thick):
        part = slice(start, min(start + thick, matrix.shape[axis]))
        yield matrix[part, :] if order == "C" else matrix[:, part]
