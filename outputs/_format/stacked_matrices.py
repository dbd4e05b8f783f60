"""The matrices of many points, one dataset of three dimensions, as one tall matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from outputs._storage.regions import Region

# What is read or written at once: a range of points, and of rows of each of them.
_Part = tuple[slice, slice]


class StackedMatrices:
    """A dataset of shape (points, rows, columns) seen as a matrix of (points * rows, columns).

    It has what this package asks of a two-dimensional `h5py.Dataset`. Rows of neighbouring points
    follow one another in the file, so that a range of the tall matrix is one of bytes.

    Attributes:
        dataset: The dataset.
        shape: (points * rows, columns).
        dtype: That of the entries.
        chunks: The tile, of whole points; None where entries are contiguous.
        is_virtual: False.
    """

    is_virtual = False

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset = dataset
        points, rows, columns = dataset.shape
        self.shape: tuple[int, int] = (points * rows, columns)
        self.dtype: np.dtype = dataset.dtype
        tile = dataset.chunks
        self.chunks: tuple[int, int] | None = tile and (tile[0] * tile[1], tile[2])
        self.file = dataset.file
        self._rows = rows

    @property
    def id(self) -> StackedMatrices:
        """The low-level interface, which takes places in the tall matrix here."""
        return self

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

    def _bounded(self, region: Region) -> Region:
        rows, columns = (
            slice(*part.indices(length)[:2])
            for part, length in zip(region, self.shape, strict=True)
        )
        return rows, columns

    def _parts(self, rows: slice) -> Iterator[_Part]:
        """A range of rows as one within a point, one of whole points, and one within a point."""
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

    def get_create_plist(self) -> Any:
        """As `h5py.h5d.DatasetID` has it."""
        return self.dataset.id.get_create_plist()

    def get_type(self) -> Any:
        """As `h5py.h5d.DatasetID` has it."""
        return self.dataset.id.get_type()

    def get_offset(self) -> int | None:
        """As `h5py.h5d.DatasetID` has it."""
        return self.dataset.id.get_offset()

    def get_storage_size(self) -> int:
        """As `h5py.h5d.DatasetID` has it."""
        return self.dataset.id.get_storage_size()

    def get_chunk_info_by_coord(self, corner: tuple[int, int]) -> Any:
        """As `h5py.h5d.DatasetID` has it, of a place in the tall matrix."""
        return self.dataset.id.get_chunk_info_by_coord(self._corner(corner))

    def write_direct_chunk(self, corner: tuple[int, int], data: bytes) -> None:
        """As `h5py.h5d.DatasetID` has it, at a place in the tall matrix."""
        self.dataset.id.write_direct_chunk(self._corner(corner), data)

    def _corner(self, corner: tuple[int, int]) -> tuple[int, int, int]:
        return corner[0] // self._rows, corner[0] % self._rows, corner[1]


Matrix = h5py.Dataset | StackedMatrices
"""What holds the entries, of two dimensions."""
