"""Write the bytes of a matrix into its file, bypassing HDF5."""

from __future__ import annotations

import numpy as np

from outputs._errors import ResultError
from outputs._format.ragged_matrices import RaggedMatrices
from outputs._format.stacked_matrices import Matrix
from outputs._storage.raw_bytes import read_bytes, start_writeback, write_bytes
from outputs._storage.regions import Region, common_part, tiles_of, within

# Below this size, let the kernel batch writeback.
_LEAST_WRITEBACK = 2**18


class Space:
    """The space of a matrix in its file, into which blocks are written.

    HDF5 supplies each offset once and writes nothing of the matrix itself: a write through HDF5
    takes at least a fifth of a millisecond whatever its size; it writes scattered data piece by
    piece (measured: 1 to 100 MiB/s); and it keeps data that did not fit on a full disk and crashes
    the process when the file is closed.

    Args:
        matrix: The matrix, of shape (rows, columns), unfiltered and with all its space allocated.
        descriptor: The matrix's file, opened for reading and writing.

    Attributes:
        shape: (rows, columns).
        dtype: Dtype of the entries.

    Raises:
        ResultError: If the entries are stored in a way that the format does not define.
    """

    def __init__(self, matrix: Matrix, descriptor: int) -> None:
        if matrix.id.get_type().get_size() != matrix.dtype.itemsize:
            raise ResultError("The entries of the matrix are of an unknown type.")
        # A contiguous dataset is not kept open, because HDF5 would keep serving what it has cached
        # to other readers in this process.
        self._matrix = None if matrix.chunks is None else matrix
        self._descriptor = descriptor
        self.shape, self.dtype = matrix.shape, matrix.dtype
        self._tile = matrix.chunks
        self._offset = matrix.id.get_offset() or 0
        self._ragged = matrix if isinstance(matrix, RaggedMatrices) else None
        self._places: dict[tuple[int, int], int] = {}

    def write(self, region: Region, values: np.ndarray) -> None:
        """Write a region.

        Args:
            region: The rows and columns to write.
            values: The entries, of the region's shape and the matrix's dtype.

        Raises:
            OSError: If the disk is full, or fails.
        """
        if self._ragged is not None:
            entries = self._ragged.stored_entries(region[0], values)
            first = self._ragged.first_entry(region[0].start)
            part = (slice(first, first + len(entries)), slice(0, 1))
            self._write_band(self._offset, 1, part, entries[:, None])
            return
        if self._tile is None:
            self._write_band(self._offset, self.shape[1], region, values)
            return
        for tile in tiles_of(self.shape, self._tile, region):
            common = common_part(tile, region)
            piece = values[within(common[0], region[0]), within(common[1], region[1])]
            if common[1] == tile[1]:
                # At the edge of the matrix a tile is wider than its part of the matrix.
                piece = _padded(piece, self._tile[1])
                part = (within(common[0], tile[0]), slice(0, self._tile[1]))
            else:
                part = (within(common[0], tile[0]), within(common[1], tile[1]))
            self._write_band(self._place(tile), self._tile[1], part, piece)

    def _write_band(self, offset: int, width: int, part: Region, values: np.ndarray) -> None:
        """Write a part of an array that is stored row by row.

        Args:
            offset: Offset of the array in the file, in bytes.
            width: Number of entries of a row of the array.
            part: The rows and columns to write.
            values: The entries.
        """
        rows, columns = part
        are_whole = columns == slice(0, width)
        line = width * self.dtype.itemsize
        place, size = offset + rows.start * line, (rows.stop - rows.start) * line
        if not are_whole:
            whole = np.zeros((rows.stop - rows.start, width), self.dtype)
            read_bytes(self._descriptor, place, whole)
            whole[:, columns] = values
            values = whole
        write_bytes(self._descriptor, place, np.ascontiguousarray(values))
        # Let the disk work while the next block is computed. Rows that are written in parts are
        # excluded, because each part would write them to the disk again.
        if are_whole and size >= _LEAST_WRITEBACK:
            start_writeback(self._descriptor, place, size)

    def _place(self, tile: Region) -> int:
        corner = tile[0].start, tile[1].start
        if corner not in self._places:
            assert self._matrix is not None
            self._places[corner] = self._matrix.id.get_chunk_info_by_coord(corner).byte_offset
        return self._places[corner]


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    missing = width - values.shape[1]
    return np.pad(values, [(0, 0), (0, missing)]) if missing else values
