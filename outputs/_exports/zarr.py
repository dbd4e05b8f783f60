"""Export to Zarr version 3: a directory with a group.

Imports zarr, so this module is imported only when a result is exported to Zarr.
"""

from __future__ import annotations

from pathlib import Path

import zarr

from outputs._reading.views.metadata import arrays, attributes, line_numbers, table
from outputs._reading.views.names import escaped
from outputs._reading.views.protocol import DenseResult
from outputs._scanning.sequential import Advance, piece_shape, pieces

_CHUNK_BYTES = 4 * 2**20


def write(result: DenseResult, path: Path, advance: Advance) -> None:
    """Write a group: the matrix with dimensions (row, column), and the arrays beside it.

    Chunks are whole tiles, or bands of rows, with zarr's own compression. The tables are
    attributes of the group, ``rows`` and ``columns``, because Zarr has no standard string dtype;
    header, provenance and configuration are attributes as well. The arrays are ``point/<name>``
    and so on, with names as `escaped` writes them. The numbers of selected lines are the
    coordinates ``row`` and ``column``.

    Args:
        result: A complete result.
        path: A path at which no directory exists yet.
        advance: Called with the number of bytes of each piece written.
    """
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs.update(
        attributes(result) | {"rows": table(result.rows), "columns": table(result.columns)}
    )
    for name, members in arrays(result).items():
        folder = group.create_group(name)
        for key, values in members.items():
            folder.create_array(escaped(key), data=values)
    for axis, numbers in line_numbers(result).items():
        group.create_array(axis, data=numbers, dimension_names=(axis,))
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
