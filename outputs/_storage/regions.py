"""Compute with rectangular regions of a matrix and the tiles that they touch."""

from __future__ import annotations

from collections.abc import Iterator

Region = tuple[slice, slice]


def within(part: slice, origin: slice) -> slice:
    """Return a range relative to the start of another range that contains it."""
    return slice(part.start - origin.start, part.stop - origin.start)


def common_part(one: Region, other: Region) -> Region:
    """Return the intersection of two regions, which must not be empty."""
    rows, columns = (
        slice(max(first.start, second.start), min(first.stop, second.stop))
        for first, second in zip(one, other, strict=True)
    )
    return rows, columns


def tiles_of(shape: tuple[int, int], tile: tuple[int, int], region: Region) -> Iterator[Region]:
    """Yield the tiles that a region touches, clipped at the edge of the matrix.

    Args:
        shape: Shape of the matrix.
        tile: Shape of a tile.
        region: The region.
    """
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
