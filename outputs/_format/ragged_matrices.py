"""Present matrices of different sizes, of points or diagonal blocks, as one tall matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np

from outputs._format.axes import TensorSpec
from outputs._format.tall_matrix import TallMatrix
from outputs._storage.regions import Region

Sizes = tuple[np.ndarray, np.ndarray]
"""The numbers of rows and of columns of each matrix, int64 of shape (matrices,)."""


def sizes_of(rows: Sequence[TensorSpec], columns: Sequence[TensorSpec], points: int) -> Sizes:
    """Return the sizes of all points, whose tensors the tables hold one point after another."""
    heights, widths = (
        np.array([tensor.size for tensor in table], np.int64).reshape(points, -1).sum(axis=1)
        for table in (rows, columns)
    )
    return heights, widths


def sizes_of_groups(tensors: Sequence[TensorSpec], groups: Sequence[int]) -> Sizes:
    """Return the sizes of diagonal blocks, whose tensors a table holds one block after another.

    Args:
        tensors: The tensors.
        groups: How many of them each block has.
    """
    stops = np.concatenate([[0], np.cumsum([tensor.size for tensor in tensors])])
    extents = np.diff(stops[np.concatenate([[0], np.cumsum(groups)])]).astype(np.int64)
    return extents, extents


def offsets_of(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return where the entries of each matrix begin, and where the last ones end, int64."""
    return np.concatenate([[0], np.cumsum(heights * widths)]).astype(np.int64)


class RaggedMatrices(TallMatrix):
    """Entries of matrices of different sizes, presented as a (all rows, most columns) matrix.

    The entries of each matrix are stored row by row, one matrix after another, so that a range of
    rows of the tall matrix is a range of bytes. Rows that are shorter than the longest end in
    zeros, which are not stored.

    Args:
        dataset: The entries, of one dimension.
        heights: The number of rows of each matrix.
        widths: The number of columns of each matrix.

    Attributes:
        chunks: None: entries are contiguous.
        offsets: Where the entries of each matrix begin, and where the last ones end.
        first_rows: Where the rows of each matrix begin, and where the last ones end.
        widths: The number of columns of each matrix.
    """

    chunks = None

    def __init__(self, dataset: h5py.Dataset, heights: np.ndarray, widths: np.ndarray) -> None:
        self.offsets = offsets_of(heights, widths)
        self.first_rows = np.concatenate([[0], np.cumsum(heights)]).astype(np.int64)
        self.widths = widths
        super().__init__(dataset, (int(self.first_rows[-1]), int(widths.max(initial=0))))

    def __getitem__(self, region: Region) -> np.ndarray:
        rows, columns = self._bounded(region)
        values = np.zeros((rows.stop - rows.start, self.shape[1]), self.dtype)
        stored = self.dataset[self.first_entry(rows.start) : self.first_entry(rows.stop)]
        done = 0
        for lines, width in self.parts(rows):
            count = (lines.stop - lines.start) * width
            values[lines, :width] = stored[done : done + count].reshape(-1, width)
            done += count
        return values[:, columns]

    def matrix(self, number: int) -> np.ndarray:
        """Read one of the matrices."""
        first, last = self.first_rows[number : number + 2].tolist()
        return self[slice(first, last), slice(0, int(self.widths[number]))]

    def diagonal(self) -> np.ndarray:
        """Read the diagonals of all matrices, which must be square, one after another."""
        starts, widths = self.offsets.tolist(), self.widths.tolist()
        parts = [
            self.dataset[start : stop : width + 1]
            for start, stop, width in zip(starts, starts[1:], widths, strict=False)
        ]
        return np.concatenate(parts)

    def stored_entries(self, rows: slice, values: np.ndarray) -> np.ndarray:
        """Return the entries of whole rows as they are stored, of one dimension."""
        parts = [values[lines, :width].reshape(-1) for lines, width in self.parts(rows)]
        return np.concatenate(parts) if len(parts) > 1 else np.ascontiguousarray(parts[0])

    def first_entry(self, row: int) -> int:
        """Return where the entries of a row begin; of one past the last row, where all end."""
        point = self._point_of(row)
        if point == len(self.widths):
            return int(self.offsets[-1])
        return int(self.offsets[point] + (row - self.first_rows[point]) * self.widths[point])

    def parts(self, rows: slice) -> Iterator[tuple[slice, int]]:
        """Yield what a range of rows has of each matrix: rows, from 0 in the range, and columns."""
        start = rows.start
        while start < rows.stop:
            point = self._point_of(start)
            stop = min(rows.stop, int(self.first_rows[point + 1]))
            yield slice(start - rows.start, stop - rows.start), int(self.widths[point])
            start = stop

    def _point_of(self, row: int) -> int:
        return int(np.searchsorted(self.first_rows, row, side="right")) - 1

    def get_chunk_info_by_coord(self, corner: tuple[int, int]) -> Any:
        """Raise: there are no tiles."""
        raise NotImplementedError

    def write_direct_chunk(self, corner: tuple[int, int], data: bytes) -> None:
        """Raise: there are no tiles."""
        raise NotImplementedError
