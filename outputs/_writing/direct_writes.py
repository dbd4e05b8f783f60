"""The bytes of a matrix in its file, written beside HDF5."""

from __future__ import annotations

import os

import numpy as np

from outputs._errors import ResultError
from outputs._format.stacked_matrices import Matrix
from outputs._storage.raw_bytes import read_bytes, start_writeback, write_bytes
from outputs._storage.regions import Region, common_part, tiles_of, within

# Of less the system makes larger writes, if it is left alone.
_LEAST_WRITEBACK = 2**18


class Space:
    """Where the entries of a matrix stand in its file.

    HDF5 is asked for places once and writes nothing of the matrix itself: a write through it costs
    a fifth of a millisecond whatever its size, it takes one piece at a time apart from what is
    scattered (measured: 1 to 100 MiB/s), and what it could not bring to a full disk it keeps, and
    crashes the process when the file is closed.

    Args:
        matrix: Of shape (rows, columns), unfiltered, with all its space allocated.
        descriptor: Its file, opened for reading and writing.

    Attributes:
        shape: (rows, columns).
        dtype: That of the entries.

    Raises:
        ResultError: If the entries are stored in a way that the format does not know.
    """

    def __init__(self, matrix: Matrix, descriptor: int) -> None:
        if matrix.id.get_type().get_size() != matrix.dtype.itemsize:
            raise ResultError("The entries of the matrix are of an unknown type.")
        # Of contiguous data HDF5 would go on showing what it has read to others in this process.
        self._matrix = None if matrix.chunks is None else matrix
        self._descriptor = descriptor
        self.shape, self.dtype = matrix.shape, matrix.dtype
        self._tile = matrix.chunks
        self._offset = matrix.id.get_offset() or 0
        self._places: dict[tuple[int, int], int] = {}

    def write(self, region: Region, values: np.ndarray) -> None:
        """Writes a region.

        Args:
            region: Where the values go.
            values: Of the region's shape and the matrix's dtype.

        Raises:
            OSError: If the disk is full, or fails.
        """
        if self._tile is None:
            self._write_band(self._offset, self.shape[1], region, values)
            return
        for tile in tiles_of(self.shape, self._tile, region):
            common = common_part(tile, region)
            piece = values[within(common[0], region[0]), within(common[1], region[1])]
            if common[1] == tile[1]:
                # At the edge of the matrix a tile is wider than what is stored of it.
                piece = _widened(piece, self._tile[1])
                part = (within(common[0], tile[0]), slice(0, self._tile[1]))
            else:
                part = (within(common[0], tile[0]), within(common[1], tile[1]))
            self._write_band(self._place(tile), self._tile[1], part, piece)

    def _write_band(self, offset: int, width: int, part: Region, values: np.ndarray) -> None:
        """Writes a part of what stands in the file row by row.

        Args:
            offset: Where the first row begins.
            width: Entries of a row.
            part: Its rows and columns that are written.
            values: The entries.
        """
        rows, columns = part
        are_whole = columns == slice(0, width)
        line = width * self.dtype.itemsize
        place, size = offset + rows.start * line, (rows.stop - rows.start) * line
        # Before anything is read or written: what is reserved is written twice as fast.
        _reserve(self._descriptor, place, size)
        if not are_whole:
            whole = np.zeros((rows.stop - rows.start, width), self.dtype)
            read_bytes(self._descriptor, place, whole)
            whole[:, columns] = values
            values = whole
        write_bytes(self._descriptor, place, np.ascontiguousarray(values))
        # The disk works while the next block is computed. Rows that are written in parts are not
        # finished: each part would bring them there again.
        if are_whole and size >= _LEAST_WRITEBACK:
            start_writeback(self._descriptor, place, size)

    def _place(self, tile: Region) -> int:
        corner = tile[0].start, tile[1].start
        if corner not in self._places:
            assert self._matrix is not None
            self._places[corner] = self._matrix.id.get_chunk_info_by_coord(corner).byte_offset
        return self._places[corner]


def _reserve(descriptor: int, offset: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, offset, size)


def _widened(values: np.ndarray, width: int) -> np.ndarray:
    missing = width - values.shape[1]
    return np.pad(values, [(0, 0), (0, missing)]) if missing else values
