"""Zarr, version 3: a directory with a group.

Imports zarr; imported itself only by an export to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import zarr

from outputs._exports import Advance
from outputs._reading.views import metadata as companions
from outputs._scanning.sequential import piece_shape, pieces

if TYPE_CHECKING:
    from outputs._reading.result import Result

_CHUNK_BYTES = 4 * 2**20


def write(result: Result, path: Path, advance: Advance) -> None:
    """Writes a group: the matrix with dimensions (row, column), and the arrays beside it.

    Chunks are whole tiles, or bands of rows, with zarr's own compression. The tables are
    attributes of the group, ``rows`` and ``columns``, because Zarr has no settled strings; what
    the result is stands beside them. The arrays are ``point/<name>`` and so on.

    Args:
        result: A complete result.
        path: A directory that does not exist.
        advance: Told the bytes of every piece.
    """
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs.update(
        companions.attributes(result)
        | {"rows": companions.table(result.rows), "columns": companions.table(result.columns)}
    )
    for name, members in companions.arrays(result).items():
        folder = group.create_group(name)
        for key, values in members.items():
            folder.create_array(key.replace("/", "_") or "_", data=values)
    matrix = result.dataset()
    chunk = piece_shape(matrix, _CHUNK_BYTES)
    target = group.create_array(
        result.operation,
        shape=result.shape,
        dtype=result.dtype,
        chunks=tuple(max(1, min(c, n)) for c, n in zip(chunk, result.shape, strict=True)),
        dimension_names=("row", "column"),
    )
    for region, values in pieces(matrix, chunk):
        target[region] = values
        advance(values.nbytes)
