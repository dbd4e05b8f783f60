"""Write a sparse result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from outputs._format import creation
from outputs._format.description import ResultDescription
from outputs._format.names import ARRAYS, CHECKSUM, CHECKSUMS, COLOURING, ENCODING, PIECE
from outputs._storage.crc import crc32_of_array
from outputs._storage.files import publish, scratch_path, seal, translated


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
) -> None:
    """Write a whole sparse result; it gets its name when it is complete and on the disk.

    Args:
        path: The file; it must not exist.
        description: What the matrix is; its dtype is that of the entries.
        indptr: Shape (rows + 1,): row i has the entries indptr[i] to indptr[i + 1].
        indices: Shape (entries,): their columns, ascending in each row.
        values: Gives the entries of a range.
        kind: The kind of colouring.
        colours: The colours by ``column_colours``, ``row_colours`` or both.
        execution: The record.

    Raises:
        ResultExistsError: There is such a file.
        ResultError: The disk is full, or the file cannot be written.
    """
    scratch = scratch_path(path)
    try:
        with translated(path), creation.create_sparse(scratch, description) as file:
            group = file.create_group(description.operation)
            creation.write_attributes(group, ENCODING)
            group.attrs["shape"] = np.array(description.shape, np.int64)
            packing = {"compression": "gzip", "shuffle": True} if _is_packed(description) else {}
            checksums = []
            dtype = np.dtype(description.dtype)
            sources: dict[str, tuple[int, np.dtype, Callable[[slice], np.ndarray]]] = {
                "data": (len(indices), dtype, values),
                "indices": (len(indices), indices.dtype, indices.__getitem__),
                "indptr": (len(indptr), indptr.dtype, indptr.__getitem__),
            }
            for number, name in enumerate(ARRAYS):
                length, kind_of_number, read = sources[name]
                chunks = (min(length, PIECE),) if packing and length else None
                stored = group.create_dataset(
                    name, (length,), kind_of_number, chunks=chunks, **(packing if length else {})
                )
                for start in range(0, length, PIECE):
                    part = slice(start, min(start + PIECE, length))
                    numbers = np.ascontiguousarray(read(part), kind_of_number)
                    stored[part] = numbers
                    checksums.append((number, part.start, part.stop, crc32_of_array(numbers)))
            file.create_dataset(CHECKSUMS, data=np.array(checksums, CHECKSUM))
            beside = file.create_group(COLOURING)
            creation.write_attributes(beside, {"kind": kind})
            for name, array in colours.items():
                beside.create_dataset(name, data=array)
            creation.write_execution(file, execution)
        seal(scratch)
        publish(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _is_packed(description: ResultDescription) -> bool:
    return description.compression == "gzip"
