"""Compute and compare the checksums of blocks: CRC-32 of their bytes in C order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from outputs._format.axes import Axis
from outputs._format.stacked_matrices import Matrix
from outputs._scanning.parallel import Piece, Source, each, pieces
from outputs._storage.crc import combine, crc32
from outputs._storage.regions import within


def block_checksum(values: np.ndarray, value: int = 0) -> int:
    """Return the CRC-32 of a block's bytes in C order, continued from ``value``."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return crc32(flat.data, value)


def damaged_blocks(
    matrix: Matrix, path: Path, axis: Axis, committed: np.ndarray
) -> list[tuple[int, int]]:
    """Return the committed ranges whose stored data fail the ledger's checksum, in order.

    Several threads read every byte once.

    Args:
        matrix: The matrix, of shape (rows, columns).
        path: The matrix's file.
        axis: The axis along which the ranges run.
        committed: Entries of ``LEDGER_DTYPE``, without overlap.

    Raises:
        ResultError: If the matrix is stored in a way that the format does not define.
    """
    committed = np.sort(committed, order="start")
    blocks = list(zip(committed["start"].tolist(), committed["stop"].tolist(), strict=True))
    found = [0] * len(blocks)
    with Source(matrix, path) as source:
        for _, checksums in each(source, _checksums, pieces(matrix, axis, blocks)):
            for block, checksum, size in checksums:
                found[block] = combine(found[block], checksum, size)
    expected = committed["checksum"].tolist()
    return [block for block, a, b in zip(blocks, found, expected, strict=True) if a != b]


def _checksums(piece: Piece, values: np.ndarray) -> list[tuple[int, int, int]]:
    rows, columns = piece.region
    parts = [
        (block, values[within(region[0], rows), within(region[1], columns)])
        for block, region in piece.parts
    ]
    return [(block, block_checksum(part), part.nbytes) for block, part in parts]
