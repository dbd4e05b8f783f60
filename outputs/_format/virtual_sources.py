"""Check the files that a virtual dataset refers to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from outputs._errors import ResultError
from outputs._format.names import Names
from outputs._format.reading import axis_of, matrix_of, read_shard, read_text, require_ours
from outputs._format.tables import read_attribute
from outputs._storage.files import open_file, parsed

# A virtual dataset needs the format of HDF5 1.10. The flag that this format leaves in a file whose
# writer is killed does no harm, because a virtual result is written under a scratch name.
LIBVER = ("earliest", "v110")

_CHECKED_AGAINST = ("fingerprint", "operation", "axis")


def require_sources(matrix: h5py.Dataset, path: Path) -> None:
    """Check that the shards behind a virtual matrix exist and belong to it.

    Args:
        matrix: The virtual dataset.
        path: The file of the virtual dataset.

    Raises:
        ResultError: If a source is missing, damaged, unfinished or of another job, or the sources
            do not cover the matrix.
    """
    axis = axis_of(matrix.file).dimension
    expected = [read_attribute(matrix.file, name) for name in _CHECKED_AGAINST]
    stop = 0
    for mapping in sorted(matrix.virtual_sources(), key=lambda one: _bounds(one, axis)):
        source = path.parent / mapping.file_name
        if not source.is_file():
            raise ResultError(
                f"{path} is virtual and its source {source} is missing; HDF5 would read zeros."
            )
        with open_file(source, "r") as file, parsed(source):
            require_ours(file, source)
            found = [read_attribute(file, name) for name in _CHECKED_AGAINST]
            shard, part = read_shard(file), matrix_of(file)
            lines = _bounds(mapping, axis)
            fits = (
                found == expected
                and shard is not None
                and lines == (shard.start, shard.stop) == (stop, stop + part.shape[axis])
                and part.shape[1 - axis] == matrix.shape[1 - axis]
                and part.dtype == matrix.dtype
                and mapping.dset_name.strip("/") == expected[1]
            )
            is_finished = bool(read_text(file, Names.EXECUTION))
        if fits and not is_finished:
            raise ResultError(
                f"{path} is virtual and its source {source} is unfinished; compute that shard to "
                "its end."
            )
        if not fits:
            raise ResultError(
                f"{path} is virtual and {source} is not the shard to which it refers."
            )
        stop = lines[1]
    if stop != matrix.shape[axis]:
        raise ResultError(f"{path} is damaged: its virtual matrix is not covered by its sources.")


def tile_of_sources(matrix: h5py.Dataset, path: Path) -> tuple[int, int] | None:
    """Return the tile of the first source of a virtual matrix; None if that is contiguous.

    Args:
        matrix: The virtual dataset.
        path: The file of the virtual dataset.
    """
    mapping = matrix.virtual_sources()[0]
    with open_file(path.parent / mapping.file_name, "r") as file:
        return matrix_of(file).chunks


def _bounds(mapping: Any, axis: int) -> tuple[int, int]:
    first, last = mapping.vspace.get_select_bounds()
    return int(first[axis]), int(last[axis]) + 1
