"""The tiles of which a matrix consists."""

from __future__ import annotations

from collections.abc import Iterator

Region = tuple[slice, slice]


def within(part: slice, origin: slice) -> slice:
    """A range counted from the start of another that holds it."""
    return slice(part.start - origin.start, part.stop - origin.start)


def common_part(one: Region, other: Region) -> Region:
    """The region that two regions, which touch, have in common."""
    rows, columns = (
        slice(max(first.start, second.start), min(first.stop, second.stop))
        for first, second in zip(one, other, strict=True)
    )
    return rows, columns


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
