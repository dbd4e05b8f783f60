"""Present the matrices of many points, a three-dimensional dataset, as one tall matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from outputs._format.ragged_matrices import RaggedMatrices
from outputs._format.tall_matrix import TallMatrix
from outputs._storage.regions import Region

# The part of one read or write: a range of points, and a range of rows in each of them.
_Part = tuple[slice, slice]


class StackedMatrices(TallMatrix):
    """A dataset of shape (points, rows, columns) presented as a (points * rows, columns) matrix.

    Rows of successive points are adjacent in the file, so that a range of rows of the tall
    matrix is a range of bytes.

    Args:
        dataset: The dataset of three dimensions.

    Attributes:
        chunks: The tile, of whole points; None if entries are contiguous.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        points, rows, columns = dataset.shape
        super().__init__(dataset, (points * rows, columns))
        tile = dataset.chunks
        self.chunks: tuple[int, int] | None = tile and (tile[0] * tile[1], tile[2])
        self._rows = rows

    def __getitem__(self, region: Region) -> np.ndarray:
        rows, columns = self._bounded(region)
        height = rows.stop - rows.start
        values = np.empty((height, columns.stop - columns.start), self.dtype)
        done = 0
        for part in self._parts(rows):
            found = self.dataset[(*part, columns)]
            lines = found.shape[0] * found.shape[1]
            values[done : done + lines] = found.reshape(lines, -1)
            done += lines
        return values

    def __setitem__(self, region: Region, values: np.ndarray) -> None:
        rows, columns = self._bounded(region)
        done = 0
        for points, lines in self._parts(rows):
            shape = points.stop - points.start, lines.stop - lines.start, -1
            count = shape[0] * shape[1]
            self.dataset[points, lines, columns] = values[done : done + count].reshape(shape)
            done += count

    def _parts(self, rows: slice) -> Iterator[_Part]:
        """Split a range of rows into rows of one point, whole points, and rows of one point."""
        start = rows.start
        while start < rows.stop:
            point, first = divmod(start, self._rows)
            whole = (rows.stop - start) // self._rows
            if first == 0 and whole:
                yield slice(point, point + whole), slice(0, self._rows)
                start += whole * self._rows
            else:
                last = min(self._rows, first + rows.stop - start)
                yield slice(point, point + 1), slice(first, last)
                start += last - first

    def get_chunk_info_by_coord(self, corner: tuple[int, int]) -> Any:
        """Return the location of a tile, by its corner in the tall matrix."""
        return self.dataset.id.get_chunk_info_by_coord(self._corner(corner))

    def write_direct_chunk(self, corner: tuple[int, int], data: bytes) -> None:
        """Write an encoded tile, by its corner in the tall matrix."""
        self.dataset.id.write_direct_chunk(self._corner(corner), data)

    def _corner(self, corner: tuple[int, int]) -> tuple[int, int, int]:
        return corner[0] // self._rows, corner[0] % self._rows, corner[1]


Matrix = h5py.Dataset | StackedMatrices | RaggedMatrices
"""A two-dimensional store of the entries."""
