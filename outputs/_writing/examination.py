"""Examine what an earlier writer has left in an unfinished file."""

from __future__ import annotations

from pathlib import Path

import h5py

from outputs._errors import ChangedFunctionError
from outputs._format.axes import Axis
from outputs._format.ledger import Ledger
from outputs._format.reading import axis_of, ledger_of, matrix_of, read_shard
from outputs._format.stacked_matrices import Matrix
from outputs._scanning.checksums import Examined, examined_blocks
from outputs._scanning.reference import Reference
from outputs._storage.files import require_space


def parts_of(file: h5py.File) -> tuple[Matrix, Axis, Ledger]:
    """Return the matrix of a file, the axis of its blocks, and its ledger."""
    matrix, axis = matrix_of(file), axis_of(file)
    lines = axis.lines(matrix.shape)
    return matrix, axis, Ledger(ledger_of(file, lines), lines)


def examined(file: h5py.File, part: Path, reference: Reference | None) -> Examined:
    """Read all blocks of an unfinished file, and compare them with what the function gives now.

    Args:
        file: The file, open for reading.
        part: Its path.
        reference: What the function gives now; None compares nothing.

    Raises:
        ChangedFunctionError: If a value, a product or a block is not what the function gives now.
        ResultError: If the disk has no room for the rest.
    """
    matrix, axis, ledger = parts_of(file)
    holes = part.stat().st_size - part.stat().st_blocks * 512
    line_bytes = axis.across(matrix.shape) * matrix.dtype.itemsize
    gaps = sum(map(len, ledger.missing())) * line_bytes
    require_space(part.parent, min(holes, gaps), f"The rest of {part} takes")
    difference, probe = "", None
    if reference is not None:
        difference = reference.difference(file)
        probe = None if difference else reference.line_probe(axis, read_shard(file))
    found = Examined()
    if not difference:
        found = examined_blocks(matrix, part, axis, ledger.committed, probe)
    if found.differing:
        shard = read_shard(file)
        first = shard.start if shard else 0
        listed = ", ".join(
            f"{start + first} to {stop + first}" for start, stop in found.differing[:3]
        )
        difference = f"{axis} {listed} do not multiply as they should with a random vector"
    if difference:
        error = ChangedFunctionError(difference)
        error.lines = ledger.lines_committed
        raise error
    return found
