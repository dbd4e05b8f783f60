"""Compress a complete result into a new file, and verify the copy."""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.creation import GZIP_LEVEL, create, write_execution
from outputs._format.digests import write_finish_digest
from outputs._format.names import Names
from outputs._format.reading import matrix_of, read_description, read_execution
from outputs._format.stacked_matrices import Matrix
from outputs._format.tables import dataset
from outputs._storage.files import is_full_disk, open_file, scratch_file, seal, translated
from outputs._storage.regions import Region, tiles_of

_MAX_WORKERS = 8
_LEDGER_PIECE = 65536


@contextlib.contextmanager
def packed(part: Path) -> Iterator[Path]:
    """Copy a complete, uncompressed result into a compressed and sealed file beside it.

    Compressed tiles are not written while blocks arrive: HDF5 allocates each tile when it is
    written and changes its index, and a kill inside a flush then leaves a file that may not open
    (measured, docs/resuming.md). Here a kill loses only the copy. It is also faster: tiles
    are compressed in parallel, and each only once, whatever the shapes of the blocks were.

    Args:
        part: The unfinished file.

    Yields:
        The path of the compressed copy, which the caller renames.

    Raises:
        ResultError: If a tile does not read back as it was written, or the disk is full.
    """
    with scratch_file(part) as copy:
        with _room_for_a_copy(part), translated(copy), open_file(part, "r") as source:
            create(copy, read_description(source), packed=True)
            with open_file(copy, "r+") as target:
                _copy_tiles(matrix_of(source), matrix_of(target))
                _copy_records(source, target)
            seal(copy)
        yield copy


@contextlib.contextmanager
def _room_for_a_copy(part: Path) -> Iterator[None]:
    """Report the space that the copy needs if the disk is full: its size is known only at the end.

    Raises:
        ResultError: In place of the error of a full disk.
    """
    try:
        yield
    except ResultError as error:
        if not is_full_disk(error):
            raise
        raise ResultError(
            f"The compressed copy of {part} takes up to {part.stat().st_size} bytes beside it and "
            f"the disk or the quota is full; {shutil.disk_usage(part.parent).free} bytes are free "
            "without the copy. No committed block is lost, and the same command resumes when there "
            "is room."
        ) from error


def _copy_tiles(source: Matrix, target: Matrix) -> None:
    if target.chunks is None:  # an empty matrix
        return
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    whole = (slice(0, target.shape[0]), slice(0, target.shape[1]))
    pending: deque[tuple[Region, np.ndarray, Future[bytes]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for tile in tiles_of(target.shape, target.chunks, whole):
            values = source[tile]
            pending.append((tile, values, pool.submit(_compressed, values, target.chunks)))
            if len(pending) > 2 * workers:
                _store(target, *pending.popleft())
        while pending:
            _store(target, *pending.popleft())


def _compressed(values: np.ndarray, tile: tuple[int, int]) -> bytes:
    """Return the bytes of one tile after HDF5's filters shuffle and deflate."""
    edge = [(0, extent - length) for extent, length in zip(tile, values.shape, strict=True)]
    entries = np.pad(values, edge).reshape(-1).view(np.uint8).reshape(-1, values.itemsize)
    return zlib.compress(np.ascontiguousarray(entries.T).data, GZIP_LEVEL)


def _store(target: Matrix, tile: Region, values: np.ndarray, work: Future[bytes]) -> None:
    target.id.write_direct_chunk((tile[0].start, tile[1].start), work.result())
    if target[tile].tobytes() != values.tobytes():
        raise ResultError(f"The tile {tile} of {target.file.filename} does not read back.")


def _copy_records(source: h5py.File, target: h5py.File) -> None:
    old, new = dataset(source, Names.LEDGER), dataset(target, Names.LEDGER)
    for start in range(0, old.shape[0], _LEDGER_PIECE):
        new[start : start + _LEDGER_PIECE] = old[start : start + _LEDGER_PIECE]
    write_execution(target, read_execution(source))
    write_finish_digest(target)
