"""The matrix of a result as an array of dask."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from outputs._optional import load
from outputs._scanning.sequential import piece_shape

if TYPE_CHECKING:
    import dask.array

    from outputs._reading.result import Result

# A task of dask costs about a millisecond, whatever it does.
_CHUNK_BYTES = 32 * 2**20


def dask_array(result: Result) -> dask.array.Array:
    """A lazy array of the result's shape whose chunks are bands of rows or whole tiles.

    With many points they are ranges of points.

    Args:
        result: A complete result; has to stay open in this process. Other processes open the
            file for themselves.

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
