"""A matrix that stays in its shards: HDF5's virtual datasets, read only where nothing is missing.

HDF5 reads zeros where a source is missing, and says nothing. So a virtual result is refused here
unless every source is there, whole and of the same job.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format import creation, names
from outputs._format import reading as layout
from outputs._format.description import ResultDescription
from outputs._format.virtual_sources import LIBVER
from outputs._storage.files import publish, scratch_path, seal, translated

if TYPE_CHECKING:
    from outputs._sharding.shard_files import ShardFile


def create_virtual(
    target: Path,
    description: ResultDescription,
    files: Sequence[ShardFile],
    execution: Mapping[str, Any],
    verify: Callable[[Path], dict[str, Any]],
) -> None:
    """Writes a result whose matrix refers to shards by their paths from where it stands.

    Args:
        target: Where it will stand.
        description: The whole matrix.
        files: The shards that cover it, in order.
        execution: The execution record, without a verification.
        verify: Gives the figures of the verification, of a file with everything else in it.

    Raises:
        ResultError: If it cannot be written, the check fails, or there are many points.
    """
    if description.points is not None:
        raise ResultError(
            f"A virtual matrix is of one point, and these are shards of {description.points}; "
            "without --virtual they are copied."
        )
    scratch = scratch_path(target)
    matrix = _matrix(description, files, target.parent)
    try:
        with translated(scratch):
            creation.create(scratch, description, virtual=matrix, libver=LIBVER)
            _fill(scratch, files, execution)
            _fill(scratch, (), {**execution, "verification": verify(scratch)})
            seal(scratch)
        publish(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def _matrix(
    description: ResultDescription, files: Sequence[ShardFile], directory: Path
) -> h5py.VirtualLayout:
    matrix = h5py.VirtualLayout(description.shape, np.dtype(description.dtype))
    rows, columns = description.shape
    for file in files:
        lines = slice(file.shard.start, file.shard.stop)
        is_rows = description.axis == "rows"
        length = lines.stop - lines.start
        source = h5py.VirtualSource(
            os.path.relpath(file.path, directory),
            description.operation,
            (length, columns) if is_rows else (rows, length),
            np.dtype(description.dtype),
        )
        if is_rows:
            matrix[lines, :] = source
        else:
            matrix[:, lines] = source
    return matrix


def _fill(path: Path, files: Sequence[ShardFile], execution: Mapping[str, Any]) -> None:
    with h5py.File(path, "r+", libver=LIBVER, locking=False) as file:
        ledger, used = layout.dataset(file, names.Names.LEDGER), 0
        for one in files:
            blocks = one.blocks.copy()
            blocks["start"] += one.shard.start
            blocks["stop"] += one.shard.start
            ledger[used : used + len(blocks)] = blocks
            used += len(blocks)
        creation.write_execution(file, execution)
