"""Moving blocks into tiles, each tile whole and in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from outputs._points import Matrix

Region = tuple[slice, slice]


def within(part: slice, origin: slice) -> slice:
    """A range counted from the start of another that holds it."""
    return slice(part.start - origin.start, part.stop - origin.start)


def tiles_of(shape: tuple[int, int], tile: tuple[int, int], region: Region) -> Iterator[Region]:
    """The tiles, clipped at the edge of the matrix, that a region touches."""
    rows, columns = (
        range(part.start - part.start % extent, part.stop, extent)
        for part, extent in zip(region, tile, strict=True)
    )
    for row in rows:
        for column in columns:
            yield (
                slice(row, min(row + tile[0], shape[0])),
                slice(column, min(column + tile[1], shape[1])),
            )


def extents(matrix: Matrix, region: Region) -> Iterator[tuple[int, int]]:
    """Where a region's bytes, or the tiles that it touches, stand in the file: (offset, size).

    Args:
        matrix: Unfiltered, of shape (rows, columns), with all its space allocated.
        region: Of whole rows where the matrix is contiguous.
    """
    if matrix.chunks is None:
        row = matrix.shape[1] * matrix.dtype.itemsize
        first = region[0].start * row
        yield matrix.id.get_offset() + first, (region[0].stop - region[0].start) * row
        return
    for tile in tiles_of(matrix.shape, matrix.chunks, region):
        info = matrix.id.get_chunk_info_by_coord((tile[0].start, tile[1].start))
        yield info.byte_offset, info.size


def write_region(matrix: Matrix, region: Region, values: np.ndarray) -> None:
    """Writes a region of the matrix.

    A selection that is scattered in memory or in a tile costs HDF5 a copy and often a system
    call for each run of entries (measured: 1 to 100 MiB/s). So a tile is gathered in memory and
    written in one piece; one that the region covers in part is read before.

    Args:
        matrix: Unfiltered, of shape (rows, columns).
        region: Where the values go.
        values: Of the region's shape and the matrix's dtype, in C order.
    """
    if matrix.chunks is None:
        matrix[region] = values
        return
    for tile in tiles_of(matrix.shape, matrix.chunks, region):
        common = (_intersection(tile[0], region[0]), _intersection(tile[1], region[1]))
        piece = values[_shifted(common[0], region[0]), _shifted(common[1], region[1])]
        if common == tile:
            matrix[tile] = np.ascontiguousarray(piece)
            continue
        whole = matrix[tile]
        whole[_shifted(common[0], tile[0]), _shifted(common[1], tile[1])] = piece
        matrix[tile] = whole


def _intersection(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _shifted(part: slice, origin: slice) -> slice:
    return slice(part.start - origin.start, part.stop - origin.start)
