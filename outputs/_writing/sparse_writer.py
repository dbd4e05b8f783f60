"""Write a sparse result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from outputs._format.creation import create_sparse, write_attributes, write_execution
from outputs._format.description import ResultDescription
from outputs._format.digests import create_digests, write_finish_digest
from outputs._format.names import ARRAYS, CHECKSUM, CHECKSUMS, COLOURING, ENCODING, PIECE
from outputs._storage.crc import crc32_of_array
from outputs._storage.files import publish, put_in_place, scratch_file, seal, translated

# The length and dtype of an array, and a function that returns a range of it.
_Source = tuple[int, np.dtype, Callable[[slice], np.ndarray]]


def write_sparse(
    path: Path,
    description: ResultDescription,
    indptr: np.ndarray,
    indices: np.ndarray,
    values: Callable[[slice], np.ndarray],
    *,
    kind: str,
    colours: Mapping[str, np.ndarray],
    execution: Mapping[str, Any],
    is_replacing: bool = False,
) -> None:
    """Write a whole sparse result; it gets its name when it is complete and on the disk.

    Args:
        path: Path of the result; no file may exist there unless it is replaced.
        description: The description of the result; its dtype is that of the entries.
        indptr: Shape (rows + 1,): the entries of row i are indptr[i] to indptr[i + 1].
        indices: Shape (entries,): the columns of the entries, ascending in each row.
        values: Returns the entries of a range.
        kind: The kind of colouring.
        colours: The colours, under ``column_colours``, ``row_colours`` or both.
        execution: The execution record, serializable as JSON.
        is_replacing: Whether a finished result at ``path`` is replaced, in one step.

    Raises:
        ResultExistsError: If there is a file at ``path`` that is not to be replaced.
        ResultError: If the disk is full, or the file cannot be written.
    """
    sources: dict[str, _Source] = {
        "data": (len(indices), np.dtype(description.dtype), values),
        "indices": (len(indices), indices.dtype, indices.__getitem__),
        "indptr": (len(indptr), indptr.dtype, indptr.__getitem__),
    }
    with translated(path), scratch_file(path) as scratch:
        with create_sparse(scratch, description) as file:
            _write_matrix(file, description, sources)
            colouring = file.create_group(COLOURING)
            write_attributes(colouring, {"kind": kind})
            for name, array in colours.items():
                colouring.create_dataset(name, data=array)
            write_execution(file, execution)
            create_digests(file)
            write_finish_digest(file)
        seal(scratch)
        (put_in_place if is_replacing else publish)(scratch, path)


def _write_matrix(
    file: h5py.File, description: ResultDescription, sources: Mapping[str, _Source]
) -> None:
    group = file.create_group(description.operation)
    write_attributes(group, ENCODING)
    group.attrs["shape"] = np.array(description.shape, np.int64)
    is_packed = description.compression == "gzip"
    checksums = []
    for number, name in enumerate(ARRAYS):
        found = _write_array(group, name, sources[name], is_packed=is_packed)
        checksums += [(number, *each) for each in found]
    file.create_dataset(CHECKSUMS, data=np.array(checksums, CHECKSUM))


def _write_array(
    group: h5py.Group, name: str, source: _Source, *, is_packed: bool
) -> list[tuple[int, int, int]]:
    """Write an array in pieces and return (start, stop, CRC-32) of each."""
    length, dtype, read = source
    packing: dict[str, Any] = {}
    if is_packed and length:
        packing = {"compression": "gzip", "shuffle": True, "chunks": (min(length, PIECE),)}
    stored = group.create_dataset(name, (length,), dtype, **packing)
    checksums = []
    for start in range(0, length, PIECE):
        part = slice(start, min(start + PIECE, length))
        numbers = np.ascontiguousarray(read(part), dtype)
        stored[part] = numbers
        checksums.append((part.start, part.stop, crc32_of_array(numbers)))
    return checksums
