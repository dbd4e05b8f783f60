"""Write a result whose matrix stays in its shards, as a virtual dataset of HDF5.

HDF5 silently reads zeros where a source is missing. So readers refuse a virtual result unless
every source exists, is complete and belongs to the same job.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.creation import create, write_execution
from outputs._format.description import ResultDescription
from outputs._format.digests import write_finish_digest
from outputs._format.names import Names
from outputs._format.tables import dataset
from outputs._format.virtual_sources import LIBVER
from outputs._sharding.shard_files import ShardFile
from outputs._storage.files import open_file, publish, scratch_file, seal, translated


def create_virtual(
    target: Path,
    description: ResultDescription,
    files: Sequence[ShardFile],
    execution: Mapping[str, Any],
    verify: Callable[[Path], dict[str, Any]],
) -> None:
    """Write a result whose matrix refers to shards by their paths relative to the result.

    Args:
        target: Path of the result.
        description: The description of the whole matrix.
        files: The shards that cover it, in order.
        execution: The execution record, without a verification.
        verify: Verifies a file that is otherwise complete and returns the figures for the
            execution record.

    Raises:
        ResultError: If the result cannot be written, the verification fails, or there are many
            points.
    """
    if description.points is not None:
        raise ResultError(
            "A virtual matrix has one point, and these are shards of the matrices of "
            f"{description.points} points; without --virtual they are copied."
        )
    matrix = _matrix(description, files, target.parent)
    with translated(target), scratch_file(target) as scratch:
        create(scratch, description, virtual=matrix, libver=LIBVER)
        _fill(scratch, files, execution)
        _fill(scratch, (), {**execution, "verification": verify(scratch)})
        seal(scratch)
        publish(scratch, target)


def _matrix(
    description: ResultDescription, files: Sequence[ShardFile], directory: Path
) -> h5py.VirtualLayout:
    matrix = h5py.VirtualLayout(description.shape, np.dtype(description.dtype))
    axis, across = description.axis, description.axis.across(description.shape)
    for file in files:
        start, stop = file.shard.start, file.shard.stop
        matrix[axis.region(start, stop)] = h5py.VirtualSource(
            os.path.relpath(file.path, directory),
            description.operation,
            axis.shape(stop - start, across),
            np.dtype(description.dtype),
        )
    return matrix


def _fill(path: Path, files: Sequence[ShardFile], execution: Mapping[str, Any]) -> None:
    with open_file(path, "r+", LIBVER) as file:
        ledger, used = dataset(file, Names.LEDGER), 0
        for one in files:
            blocks = one.blocks.copy()
            blocks["start"] += one.shard.start
            blocks["stop"] += one.shard.start
            ledger[used : used + len(blocks)] = blocks
            used += len(blocks)
        write_execution(file, execution)
        write_finish_digest(file)
