"""Choose the HDF5 chunk shape (the tile) of a matrix."""

from __future__ import annotations

import numpy as np

from outputs._format.axes import Axis
from outputs._format.description import ResultDescription

_TILE_BYTES = 2 * 2**20


_TILE_LINES = 16


_MOST_TILE_LINES = 256


_SMALL_TILE_BYTES = 256 * 2**10


_MANY_TILES = 65536


def planned_tile(description: ResultDescription, *, packed: bool = False) -> tuple[int, int] | None:
    """The shape of the tiles that a result will have; None for rows one after the other.

    Args:
        description: The result.
        packed: Whether it is compressed already; it is uncompressed until it is finished.
    """
    if 0 in description.stored_shape:  # HDF5 has no tiles of an empty dataset
        return None
    # Measured: row blocks go faster into contiguous space than into any tile, and it needs no
    # index; compressed data and column blocks need tiles.
    if description.points is not None and description.shard is None:
        return _tile_of_points(description) if packed else None
    if description.tile is None and (packed or description.axis == "columns"):
        itemsize = np.dtype(description.dtype).itemsize
        shape, block = description.stored_shape, description.block_lines
        return tile_shape(shape, itemsize, description.axis, block)
    return description.tile


def tile_shape(
    shape: tuple[int, int], itemsize: int, axis: Axis, block_lines: int | None = None
) -> tuple[int, int]:
    """The tile for blocks that arrive along ``axis``: few lines, long across, 2 MiB at most.

    Where it is known how large blocks are, a tile has as many lines as a block, so that a part of
    the block is a tile without a copy; or a part of them; or of very small blocks several, though a
    tile that is written in parts is read each time. Else extents divide the matrix evenly, because
    HDF5 stores the tiles at its edge whole.

    Args:
        shape: Shape of the matrix, without a zero.
        itemsize: Bytes an entry.
        axis: The axis along which blocks arrive.
        block_lines: How many lines a block has, where that is known.
    """
    lines, across = shape if axis == "rows" else shape[::-1]
    together = _lines_of_blocks(lines, across * itemsize, block_lines)
    if together is not None:
        lines = together
        across = _even_part(across, max(1, _TILE_BYTES // (lines * itemsize)), multiple=1)
    else:
        across = _even_part(across, _TILE_BYTES // (min(lines, _TILE_LINES) * itemsize), multiple=1)
        lines = _even_part(lines, _TILE_BYTES // (across * itemsize), multiple=_TILE_LINES)
    return (lines, across) if axis == "rows" else (across, lines)


def _lines_of_blocks(lines: int, line_bytes: int, block_lines: int | None) -> int | None:
    """How many lines of a tile fit to blocks; None where blocks are not known, or nothing fits."""
    if block_lines is None:
        return None
    block_lines = min(block_lines, lines)
    if block_lines <= _MOST_TILE_LINES:
        # Of smaller tiles the way to them takes longer than their bytes, and more of them than
        # that take too long to lay out.
        least = min(_TILE_BYTES, max(_SMALL_TILE_BYTES, lines * line_bytes // _MANY_TILES))
        return min(lines, block_lines * -(-least // (block_lines * line_bytes)))
    parts = range(-(-block_lines // _MOST_TILE_LINES), block_lines // _TILE_LINES + 1)
    return next((block_lines // n for n in parts if block_lines % n == 0), None)


def _tile_of_points(description: ResultDescription) -> tuple[int, int]:
    """Of whole points, so that a tile is a rectangle also of the matrix of all points' rows."""
    rows, columns = description.shape
    height = rows // (description.points or 1)
    itemsize = np.dtype(description.dtype).itemsize
    width = _even_part(columns, max(1, _TILE_BYTES // (height * itemsize)), multiple=1)
    points = max(1, _TILE_BYTES // (height * width * itemsize))
    return height * min(points, description.points or 1), width


def _even_part(length: int, limit: int, multiple: int) -> int:
    parts = -(-length // limit)
    part = -(-length // parts)
    return min(length, -(-part // multiple) * multiple)
