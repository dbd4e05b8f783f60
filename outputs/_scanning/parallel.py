"""Read a matrix once with several threads, in pieces that fit in memory.

Bytes are read directly from the file, because HDF5 serializes reads: it only supplies their
offsets.
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import Axis
from outputs._format.ragged_matrices import RaggedMatrices
from outputs._format.stacked_matrices import Matrix
from outputs._storage.raw_bytes import read_bytes
from outputs._storage.regions import Region, common_part, tiles_of, within

_PIECE_BYTES = 4 * 2**20
_LARGEST_PIECE_BYTES = 256 * 2**20
_MAX_WORKERS = 8
_KNOWN_FILTERS = [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]

_Span = tuple[int, int]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Piece:
    """A region that is read and processed as a whole.

    Attributes:
        region: The rows and columns of the piece.
        parts: The blocks in it: their index in the list of blocks, and their rows and columns.
    """

    region: Region
    parts: list[tuple[int, Region]]


def pieces(matrix: Matrix, axis: Axis, blocks: list[_Span]) -> Iterator[Piece]:
    """Divide the blocks of a matrix into pieces; those of one block come in C order.

    Args:
        matrix: The matrix, of shape (rows, columns).
        axis: The axis along which the blocks run.
        blocks: Ranges without overlap, in order.
    """
    if not blocks or 0 in matrix.shape:
        return
    yield from _row_pieces(matrix, blocks) if axis == "rows" else _column_pieces(matrix, blocks)


def _row_pieces(matrix: Matrix, blocks: list[_Span]) -> Iterator[Piece]:
    rows, columns = matrix.shape
    height, width = _height(matrix, columns), columns
    if height == 1 and columns * matrix.dtype.itemsize > _LARGEST_PIECE_BYTES:
        width = _PIECE_BYTES // matrix.dtype.itemsize
    for top in range(0, rows, height):
        band = slice(top, min(top + height, rows))
        for start in range(0, columns, width):
            across = slice(start, min(start + width, columns))
            if parts := list(_parts(blocks, band, across)):
                yield Piece((band, across), parts)


def _column_pieces(matrix: Matrix, blocks: list[_Span]) -> Iterator[Piece]:
    rows = matrix.shape[0]
    for first, last in list(_groups(matrix, blocks)):
        left, right = blocks[first][0], blocks[last - 1][1]
        height = _height(matrix, right - left)
        for top in range(0, rows, height):
            band = slice(top, min(top + height, rows))
            parts = [(index, (band, slice(*blocks[index]))) for index in range(first, last)]
            yield Piece((band, slice(left, right)), parts)


def _groups(matrix: Matrix, blocks: list[_Span]) -> Iterator[_Span]:
    """Yield index ranges of adjacent column blocks that are wide enough and end at tile edges."""
    if matrix.chunks is None:
        yield 0, len(blocks)
        return
    height, width = matrix.chunks
    enough = max(1, _PIECE_BYTES // (min(height, matrix.shape[0]) * matrix.dtype.itemsize))
    first = 0
    for index, (_, stop) in enumerate(blocks):
        wide = stop - blocks[first][0]
        if wide >= enough and (stop % width == 0 or wide >= 4 * enough):
            yield first, index + 1
            first = index + 1
    if first < len(blocks):
        yield first, len(blocks)


def _height(matrix: Matrix, width: int) -> int:
    line = width * matrix.dtype.itemsize
    height = max(1, _PIECE_BYTES // line)
    if matrix.chunks is not None:
        height = max(matrix.chunks[0], height - height % matrix.chunks[0])
    # Tiles that are too tall are read more than once: the memory limit takes precedence.
    return height if height * line <= _LARGEST_PIECE_BYTES else max(1, _PIECE_BYTES // line)


def _parts(blocks: list[_Span], band: slice, across: slice) -> Iterator[tuple[int, Region]]:
    index = max(0, bisect_left(blocks, (band.start, band.start)) - 1)
    while index < len(blocks) and blocks[index][0] < band.stop:
        start, stop = max(blocks[index][0], band.start), min(blocks[index][1], band.stop)
        if start < stop:
            yield index, (slice(start, stop), across)
        index += 1


class Source:
    """A reader of a matrix's bytes for any number of threads.

    Args:
        matrix: The matrix, of shape (rows, columns), validated by ``require_sound``.
        path: The matrix's file.

    Attributes:
        bytes_read: Bytes that have been requested so far.

    Raises:
        ResultError: If the matrix is stored in a way that the format does not define.
    """

    def __init__(self, matrix: Matrix, path: Path) -> None:
        properties = matrix.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        if filters not in ([], _KNOWN_FILTERS):
            raise ResultError(f"{path} is compressed by filters that this format does not have.")
        if matrix.id.get_type().get_size() != matrix.dtype.itemsize:
            raise ResultError(f"{path} is damaged: its entries are of an unknown type.")
        self._matrix, self._path, self._packed = matrix, path, bool(filters)
        self._dtype, self._shape, self._tile = matrix.dtype, matrix.shape, matrix.chunks
        self._offset = matrix.id.get_offset() or 0
        self._descriptor = os.open(path, os.O_RDONLY)
        self.bytes_read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def read(self, region: Region) -> np.ndarray:
        """Read a region."""
        return self.reading(region)(_Memory())

    def reading(self, region: Region) -> Callable[[_Memory], np.ndarray]:
        """Return a function that reads a region in any thread; HDF5 is called only here.

        The function takes the memory to read into.
        """
        if self._matrix.is_virtual or isinstance(self._matrix, RaggedMatrices):
            # The bytes are in other files, which HDF5 has open, or of rows of different lengths.
            values = self._matrix[region]
            self.bytes_read += values.nbytes
            return lambda memory: values
        if self._tile is None:
            rows, columns = region
            if columns.stop - columns.start < self._shape[1] and rows.stop - rows.start > 1:
                columns = slice(0, self._shape[1])
            entries = (rows.stop - rows.start) * (columns.stop - columns.start)
            self.bytes_read += entries * self._dtype.itemsize
            return lambda memory: self._contiguous(region, columns, memory)
        places = [(tile, self._place(tile)) for tile in tiles_of(self._shape, self._tile, region)]
        self.bytes_read += sum(size for _, (_, size) in places)
        return lambda memory: self._gathered(region, places, memory)

    def _contiguous(self, region: Region, columns: slice, memory: _Memory) -> np.ndarray:
        """Read adjacent bytes: whole rows, or a part of a single row."""
        shape = region[0].stop - region[0].start, columns.stop - columns.start
        values = memory.array("piece", shape, self._dtype)
        first = region[0].start * self._shape[1] + columns.start
        self._fill(values, self._offset + first * self._dtype.itemsize)
        return values[:, within(region[1], columns)]

    def _place(self, tile: Region) -> _Span:
        corner = tile[0].start, tile[1].start
        info = self._matrix.id.get_chunk_info_by_coord(corner)
        if info.byte_offset is None or not info.size or info.filter_mask:
            raise ResultError(f"{self._path} is damaged: the tile at {corner} is missing.")
        return info.byte_offset, info.size

    def _gathered(
        self, region: Region, places: list[tuple[Region, _Span]], memory: _Memory
    ) -> np.ndarray:
        shape = tuple(part.stop - part.start for part in region)
        values = memory.array("piece", shape if len(places) > 1 else (0, 0), self._dtype)
        for tile, (offset, size) in places:
            data = memory.array("tile", (size,), np.dtype(np.uint8))
            self._fill(data, offset)
            entries = self._entries(data)
            common = common_part(tile, region)
            piece = entries[within(common[0], tile[0]), within(common[1], tile[1])]
            if len(places) == 1:
                return piece
            values[within(common[0], region[0]), within(common[1], region[1])] = piece
        return values

    def _entries(self, data: np.ndarray) -> np.ndarray:
        tile: Any = self._tile
        size = tile[0] * tile[1] * self._dtype.itemsize
        if self._packed:
            inflate = zlib.decompressobj()
            try:
                plain = inflate.decompress(data.data, size)
            except zlib.error:
                raise ResultError(f"{self._path} is damaged: a tile does not unpack.") from None
            shuffled = np.frombuffer(plain, np.uint8)
            if len(shuffled) == size:
                data = np.ascontiguousarray(shuffled.reshape(self._dtype.itemsize, -1).T)
            else:
                data = shuffled
        if data.size != size:
            raise ResultError(f"{self._path} is damaged: a tile has another size.")
        return data.reshape(-1).view(self._dtype).reshape(tile)

    def _fill(self, values: np.ndarray, offset: int) -> None:
        if read_bytes(self._descriptor, offset, values) < values.nbytes:
            raise ResultError(f"{self._path} is truncated: its end is missing.")


class _Memory(threading.local):
    """Memory that each thread uses again and again.

    The kernel clears new memory, which takes a quarter of the time of reading into it (measured).
    """

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray] = {}

    def array(self, use: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an array with any entries, in the memory of the last one for the same use."""
        size = math.prod(shape) * dtype.itemsize
        kept = self._kept.get(use)
        if kept is None or len(kept) < size:
            kept = self._kept[use] = np.empty(size, np.uint8)
        return kept[:size].view(dtype).reshape(shape)


def each(
    source: Source,
    work: Callable[[Piece, np.ndarray], _Answer],
    pending: Iterator[Piece],
) -> Iterator[tuple[Piece, _Answer]]:
    """Run ``work`` on the pieces in several threads; yield the answers in order of the pieces.

    Args:
        source: The source of the entries.
        work: Gets a piece and its entries, which the next piece of the same thread overwrites.
        pending: The pieces.
    """
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    running: deque[tuple[Piece, Future[_Answer]]] = deque()
    memory = _Memory()

    def task(piece: Piece, read: Callable[[_Memory], np.ndarray]) -> _Answer:
        return work(piece, read(memory))

    with ThreadPoolExecutor(workers) as pool:
        try:
            for piece in pending:
                running.append((piece, pool.submit(task, piece, source.reading(piece.region))))
                if len(running) > 2 * workers:
                    done, future = running.popleft()
                    yield done, future.result()
            while running:
                done, future = running.popleft()
                yield done, future.result()
        finally:
            for _, future in running:
                future.cancel()
