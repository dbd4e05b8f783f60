"""Draw the pattern of a sparse matrix as dots for terminals, and count entries for plots."""

from __future__ import annotations

import numpy as np

_BRAILLE = 0x2800
# The bit of each dot of a cell of four rows and two columns, in Unicode's order.
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def braille_picture(
    indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int], width: int = 60
) -> str:
    """Return the pattern as lines of Braille characters, of eight dots each.

    A dot represents a rectangle of the matrix that contains an entry.

    Args:
        indptr: Offsets of the compressed rows, of shape (rows + 1,).
        indices: Columns of the entries, of shape (entries,).
        shape: (rows, columns).
        width: Maximum number of characters of a line.
    """
    rows, columns = shape
    if not rows or not columns:
        return ""
    scale = max(1.0, max(rows, columns) / (2 * width))
    grid = occupancy(
        indptr, indices, shape, int(np.ceil(rows / scale)), int(np.ceil(columns / scale))
    )
    height, across = -(-grid.shape[0] // 4), -(-grid.shape[1] // 2)
    dots = np.zeros((4 * height, 2 * across), dtype=bool)
    dots[: grid.shape[0], : grid.shape[1]] = grid > 0
    cells = dots.reshape(height, 4, across, 2).transpose(0, 2, 1, 3)
    codes = _BRAILLE + (cells * _BITS).sum((2, 3))
    return "\n".join("".join(map(chr, line)) for line in codes)


def occupancy(
    indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int], down: int, across: int
) -> np.ndarray:
    """Return the number of entries in each cell of a grid, int64 of shape (down, across)."""
    rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
    places = (rows * down // shape[0]) * across + indices.astype(np.int64) * across // shape[1]
    return np.bincount(places, minlength=down * across).reshape(down, across)
