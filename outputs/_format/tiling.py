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
    """Return the shape of the tiles that a result will have; None for contiguous rows.

    Args:
        description: The description of the result.
        packed: Whether the file is compressed; a result is uncompressed until it is finished.
    """
    if 0 in description.stored_shape:  # HDF5 has no tiles of an empty dataset
        return None
    # Measured: row blocks are written faster into contiguous space than into any tile, and it needs
    # no index; compressed data and column blocks need tiles.
    if description.points is not None and description.shard is None:
        return _tile_of_points(description) if packed else None
    if description.tile is None and (packed or description.axis is Axis.COLUMNS):
        itemsize = np.dtype(description.dtype).itemsize
        shape, block = description.stored_shape, description.block_lines
        return tile_shape(shape, itemsize, description.axis, block)
    return description.tile


def tile_shape(
    shape: tuple[int, int], itemsize: int, axis: Axis, block_lines: int | None = None
) -> tuple[int, int]:
    """Return the tile for blocks that arrive along ``axis``: few lines, long across, up to 2 MiB.

    If the size of blocks is known, a tile has as many lines as a block, so that a part of the
    block is a tile without a copy, or an even part of these lines. Several very small blocks share
    a tile, although a tile that is written in parts is read each time. Otherwise extents divide
    the matrix evenly, because HDF5 stores the tiles at its edge whole.

    Args:
        shape: Shape of the matrix; no extent is zero.
        itemsize: Bytes of an entry.
        axis: The axis along which blocks arrive.
        block_lines: Number of lines of a block; None if not known.
    """
    axis = Axis(axis)
    lines, across = axis.lines(shape), axis.across(shape)
    together = _lines_of_blocks(lines, across * itemsize, block_lines)
    if together is not None:
        lines = together
        across = _even_part(across, max(1, _TILE_BYTES // (lines * itemsize)), multiple=1)
    else:
        across = _even_part(across, _TILE_BYTES // (min(lines, _TILE_LINES) * itemsize), multiple=1)
        lines = _even_part(lines, _TILE_BYTES // (across * itemsize), multiple=_TILE_LINES)
    return axis.shape(lines, across)


def _lines_of_blocks(lines: int, line_bytes: int, block_lines: int | None) -> int | None:
    """Return the lines of a tile that fits blocks; None if blocks are unknown or nothing fits."""
    if block_lines is None:
        return None
    block_lines = min(block_lines, lines)
    if block_lines <= _MOST_TILE_LINES:
        # Access to a smaller tile takes longer than the transfer of its bytes, and a larger number
        # of tiles takes too long to lay out.
        least = min(_TILE_BYTES, max(_SMALL_TILE_BYTES, lines * line_bytes // _MANY_TILES))
        return min(lines, block_lines * -(-least // (block_lines * line_bytes)))
    parts = range(-(-block_lines // _MOST_TILE_LINES), block_lines // _TILE_LINES + 1)
    return next((block_lines // n for n in parts if block_lines % n == 0), None)


def _tile_of_points(description: ResultDescription) -> tuple[int, int]:
    """Return a tile of whole points, which is a rectangle of the stacked matrix as well."""
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
