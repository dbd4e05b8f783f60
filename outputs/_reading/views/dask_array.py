"""Present the matrix of a result as a dask array."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from outputs._optional import load
from outputs._reading.views.protocol import DenseResult
from outputs._scanning.sequential import piece_shape

if TYPE_CHECKING:
    import dask.array

# Chunks are large because a dask task costs about a millisecond, regardless of its size.
_CHUNK_BYTES = 32 * 2**20


def dask_array(result: DenseResult) -> dask.array.Array:
    """Return a lazy array of the result's shape.

    Its chunks are bands of rows or whole tiles; with many points they are ranges of points.

    Args:
        result: A complete result; it must stay open in this process. Other processes open the
            file themselves.

    Raises:
        MissingDependencyError: If dask is not installed.
    """
    array = load("dask.array", "reading", "as_dask()")
    base = load("dask.base", "reading", "as_dask()")
    shape: tuple[int, ...] = piece_shape(result.matrix(), _CHUNK_BYTES)
    if result.point_count is not None:
        height = result.shape[1]
        shape = (shape[0] // max(1, height), *result.shape[1:])
    chunks = tuple(max(1, min(p, n)) for p, n in zip(shape, result.shape, strict=True))
    status = os.stat(result.path)
    token = base.tokenize(os.fspath(result.path), status.st_mtime_ns, status.st_size)
    return array.from_array(result, chunks=chunks, name=f"{result.operation}-{token}")
