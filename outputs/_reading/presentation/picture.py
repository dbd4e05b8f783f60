"""Make a small picture of magnitudes from a bounded number of bytes, without Matplotlib."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import h5py
import numpy as np

from outputs._format.axes import Axis
from outputs._format.stacked_matrices import Matrix
from outputs._format.virtual_sources import tile_of_sources
from outputs._reading.presentation.matrix_statistics import least_shown, magnitudes, raise_cells
from outputs._reading.presentation.protocols import ShownResult, ShownSparseResult
from outputs._scanning.sequential import pieces
from outputs._storage.files import translated
from outputs._storage.regions import Region

_CELLS = 64
_MOST_BYTES = 64 * 2**20
_MOST_READS = 1024
_RUN_BYTES = 64 * 2**10  # of a contiguous matrix, read at once
_ENTRY_BYTES = 16  # of a sparse matrix: the entry and its column

# The colour map viridis of Matplotlib (S. van der Walt and N. Smith, 2015), at equal distances.
VIRIDIS = ("440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725")
_ZERO, _MISSING, _NOT_FINITE, _FIRST = range(4)
ZERO, MISSING, NOT_FINITE = "ffffff", "b8bec6", "e6007e"


@dataclass(frozen=True)
class Picture:
    """The magnitudes of a matrix in the cells of a coarse grid.

    Attributes:
        magnitude: Largest absolute value seen in each cell, without NaN and Inf; float64 of shape
            (cells down, cells across).
        nonfinite: Whether NaN or Inf was seen; bool of the same shape.
        seen: Whether the file has entries of the cell; bool of the same shape.
        is_sample: Whether only a part of the entries was read.
    """

    magnitude: np.ndarray
    nonfinite: np.ndarray
    seen: np.ndarray
    is_sample: bool = False

    @classmethod
    def empty(cls, down: int, across: int, *, is_sample: bool = False) -> Picture:
        """Return a picture of a matrix of which nothing has been read."""
        shape = (down, across)
        flags = np.zeros(shape, bool), np.zeros(shape, bool)
        return cls(np.zeros(shape), *flags, is_sample)

    @property
    def range(self) -> tuple[float, float] | None:
        """The ends of the colour scale, which is logarithmic; None if no entry is above zero."""
        largest = float(self.magnitude.max(initial=0.0))
        return (least_shown(self.magnitude, largest), largest) if largest > 0 else None

    def cells(self, down: slice, across: slice) -> Picture:
        """Return a part of the grid, which shares its memory."""
        place = (down, across)
        return Picture(self.magnitude[place], self.nonfinite[place], self.seen[place])

    def add(self, values: np.ndarray, present: np.ndarray, at: Region, of: tuple[int, int]) -> None:
        """Note entries of a matrix that the grid covers.

        Args:
            values: The entries.
            present: Whether each of them is in the file; broadcasts to the shape of ``values``.
            at: Their rows and columns.
            of: The shape of the matrix.
        """
        size = magnitudes(values)
        finite, present = np.isfinite(size), np.broadcast_to(present, size.shape)
        size[~(finite & present)] = 0
        raise_cells(self.magnitude, size, at, of)
        raise_cells(self.nonfinite, ~finite & present, at, of)
        raise_cells(self.seen, present, at, of)

    def png(self) -> bytes:
        """Return the picture as a PNG file (W3C PNG, third edition) with a pixel for each cell."""
        pixels: np.ndarray = np.full(self.magnitude.shape, _MISSING, np.uint8)
        pixels[self.seen] = _ZERO
        if self.range is not None:
            shades = 255 - _FIRST
            low, high = np.log(self.range[0]), np.log(self.range[1])
            positive = self.seen & (self.magnitude > 0)
            height = (np.log(self.magnitude[positive]) - low) / (high - low)
            pixels[positive] = _FIRST + np.rint(shades * height.clip(0, 1)).astype(np.uint8)
        pixels[self.nonfinite] = _NOT_FINITE
        down, across = pixels.shape
        lines = np.zeros((down, across + 1), np.uint8)  # each begins with its filter: none
        lines[:, 1:] = pixels
        header = struct.pack(">IIBBBBB", across, down, 8, 3, 0, 0, 0)
        chunks = (
            (b"IHDR", header),
            (b"PLTE", _palette()),
            (b"IDAT", zlib.compress(lines.tobytes(), 9)),
            (b"IEND", b""),
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, *zip(*chunks, strict=True)))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _palette() -> bytes:
    """Return the colours of zero, of what is missing and not finite, and of magnitudes."""
    points = np.array([list(bytes.fromhex(colour)) for colour in VIRIDIS], float)
    places = np.linspace(0, len(points) - 1, 256 - _FIRST)
    shades = [np.interp(places, range(len(points)), channel) for channel in points.T]
    colours = np.rint(np.stack(shades, 1)).astype(np.uint8).tobytes()
    return bytes.fromhex(ZERO + MISSING + NOT_FINITE) + colours


def dense_picture(result: ShownResult) -> Picture:
    """Return a picture of a dense result, finished or not.

    A matrix of up to 64 MiB is read as a whole. Of a larger one, tiles or runs of entries at equal
    distances are read, of about as many bytes, each of which stands for its cell.

    Args:
        result: The result; lines that it does not have are not looked at.

    Raises:
        ResultError: If the file is closed or damaged.
    """
    matrix = result.stored_matrix
    shape = result.matrix_shape
    mask = result.mask
    present = mask[:, None] if result.axis is Axis.ROWS else mask[None, :]
    with translated(result.path):
        if shape[0] * shape[1] * result.dtype.itemsize > _MOST_BYTES:
            return _sample(matrix, present, _unit(result))
        picture = Picture.empty(*(min(length, _CELLS) for length in shape))
        for (rows, columns), values in pieces(matrix):
            picture.add(values, _part(present, rows, columns), (rows, columns), shape)
    return picture


def _unit(result: ShownResult) -> tuple[int, int]:
    """Return the extents of what is read at once: a tile, or a run of entries in a row."""
    matrix = result.stored_matrix
    tile = matrix.chunks
    if isinstance(matrix, h5py.Dataset) and matrix.is_virtual:
        tile = tile_of_sources(matrix, result.path)
    if tile is None:
        tile = 1, _RUN_BYTES // result.dtype.itemsize
    rows, columns = result.matrix_shape
    return min(tile[0], rows), min(tile[1], columns)


def _sample(matrix: Matrix, present: np.ndarray, unit: tuple[int, int]) -> Picture:
    """Read one unit for each cell of a grid, the one in its middle."""
    most = _MOST_BYTES // (unit[0] * unit[1] * matrix.dtype.itemsize)
    counts = [-(-length // extent) for length, extent in zip(matrix.shape, unit, strict=True)]
    cells = _grid(counts, max(1, min(most, _MOST_READS)))
    # Where all units along an axis are read, each is drawn in several cells.
    finer = [
        max(1, min(_CELLS // chosen, extent)) if chosen == count else 1
        for chosen, count, extent in zip(cells, counts, unit, strict=True)
    ]
    picture = Picture.empty(cells[0] * finer[0], cells[1] * finer[1], is_sample=True)
    for i in range(cells[0]):
        for j in range(cells[1]):
            rows, columns = (
                _middle(place, chosen, count, extent, length)
                for place, chosen, count, extent, length in zip(
                    (i, j), cells, counts, unit, matrix.shape, strict=True
                )
            )
            part = picture.cells(
                slice(i * finer[0], (i + 1) * finer[0]), slice(j * finer[1], (j + 1) * finer[1])
            )
            at = slice(0, unit[0]), slice(0, unit[1])
            part.add(matrix[rows, columns], _part(present, rows, columns), at, unit)
    return picture


def _grid(counts: list[int], most: int) -> tuple[int, int]:
    """Return how many units to read along each axis, as equal as possible, `most` in all."""
    down, across = (min(count, _CELLS) for count in counts)
    while down * across > most:
        if down >= across:
            down -= 1
        else:
            across -= 1
    return down, across


def _middle(place: int, cells: int, count: int, extent: int, length: int) -> slice:
    """Return the unit in the middle of a cell along one axis, whole also at the edge."""
    unit = (2 * place + 1) * count // (2 * cells)
    start = min(unit * extent, length - extent)
    return slice(start, start + extent)


def _part(present: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    return present[rows] if present.shape[1] == 1 else present[:, columns]


def sparse_picture(result: ShownSparseResult) -> Picture:
    """Return a picture of a sparse result; entries that it does not hold are zero.

    Of a matrix of more than four million entries, ranges of rows at equal distances are read.

    Args:
        result: The result.

    Raises:
        ResultError: If the file is closed or damaged.
    """
    rows, columns = result.shape
    is_sample = result.entries * _ENTRY_BYTES > _MOST_BYTES
    down, across = min(rows, _CELLS), min(columns, _CELLS)
    picture = Picture.empty(down, across, is_sample=is_sample)
    if 0 in result.shape:
        return picture
    picture.seen[:] = True
    if not is_sample:
        _add_rows(picture, result, 0, rows, np.arange(rows) * down // rows)
        return picture
    share = _MOST_BYTES / (result.entries * _ENTRY_BYTES)
    extent = max(1, int(share * rows / down))
    for cell in range(down):
        start = min((2 * cell + 1) * rows // (2 * down), rows - extent)
        _add_rows(picture, result, start, start + extent, np.full(extent, cell))
    return picture


def _add_rows(
    picture: Picture, result: ShownSparseResult, start: int, stop: int, cells: np.ndarray
) -> None:
    """Note the entries of a range of rows, whose cells down are given for each row."""
    indptr, indices, data = result.compressed_rows(start, stop)
    place = (
        np.repeat(cells, np.diff(indptr)),
        indices.astype(np.int64) * picture.magnitude.shape[1] // result.shape[1],
    )
    size = magnitudes(data)
    finite = np.isfinite(size)
    np.maximum.at(picture.magnitude, place, np.where(finite, size, 0))
    np.logical_or.at(picture.nonfinite, place, ~finite)
