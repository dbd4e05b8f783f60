"""Verify dense results: checksums, ledger and probe products."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from outputs._format.description import DIAGONAL, SYMMETRIC
from outputs._format.names import Names
from outputs._format.probes import Probes
from outputs._format.ragged_matrices import RaggedMatrices
from outputs._format.tables import dataset, group_of
from outputs._reading.result import Result
from outputs._scanning.checksums import block_checksum
from outputs._scanning.parallel import Piece, Source, each, pieces
from outputs._scanning.relative_errors import relative_errors
from outputs._storage.crc import combine
from outputs._storage.files import parsed, translated
from outputs._storage.regions import Region, within
from outputs._verification.products import (
    Sums,
    check_products,
    in_double_precision,
    listed,
    zero_sums,
)

# A slab stays in a cache while its checksum, products and squares are computed.
_SLAB_BYTES = 2 * 2**20


def check_header(result: Result) -> dict[str, Any]:
    """Read everything beside the matrix, or at least validate it.

    Returns:
        Fields of a `Verification`, among them ``problems``.
    """
    problems = []
    with parsed(result.path):
        _ = result.configuration, result.provenance
        for name in (Names.POINT, Names.VALUE, Names.VECTORS):
            group = group_of(result.file, name)
            for key in map(str, group):
                dataset(group, key)
    damaged = result.damaged_records()
    problems += [f"{found} do not have their checksum" for found in damaged]
    if result.ledger.impossible:
        problems.append(f"{len(result.ledger.impossible)} entries of the ledger are impossible")
    if not result.complete:
        problems.append(f"unfinished: {result.progress}")
    return {
        "problems": tuple(problems),
        "operation": result.operation,
        "shape": result.shape,
        "structure": result.structure,
        "dtype": result.dtype.name,
        "complete": result.complete,
        "blocks": result.blocks,
        "recorded": result.verdict,
    }


def check_blocks(result: Result, problems: Iterable[str]) -> dict[str, Any]:
    """Check checksums, products and non-finite entries in one pass over the committed blocks.

    Args:
        result: An open result.
        problems: The problems found so far.

    Returns:
        Fields of a `Verification`, among them ``problems``.
    """
    # The products with a whole matrix are not those with its diagonal.
    probes = None if result.structure == DIAGONAL else result.probes
    # The products of an incomplete matrix are not those of the whole.
    used = probes if result.complete else None
    total, corrupt, bytes_read = _scan(result, used)
    facts: dict[str, Any] = {
        "corrupt": corrupt,
        "nonfinite": total.nonfinite,
        "bytes_read": bytes_read,
    }
    problems = list(problems)
    if corrupt:
        problems.append(
            f"{len(corrupt)} of {result.blocks} blocks of {result.axis} do not have their "
            f"checksum: {listed(f'{start}:{stop}' for start, stop in corrupt)}"
        )
    if used is not None:
        matrix = result.stored_matrix
        bounds = matrix.first_rows if isinstance(matrix, RaggedMatrices) else None
        facts |= check_products(used, total, problems, bounds)
        facts["asymmetry"] = _asymmetry(result, used, total)
    facts["tolerance"] = None if probes is None else probes.tolerance
    return facts | {"problems": tuple(problems)}


def _scan(result: Result, probes: Probes | None) -> tuple[Sums, tuple[tuple[int, int], ...], int]:
    """Return the sums over all blocks, the ranges of corrupt blocks, and the bytes read."""
    entries = np.sort(result.ledger.committed, order="start")
    blocks = list(zip(entries["start"].tolist(), entries["stop"].tolist(), strict=True))
    total = zero_sums(probes, *result.matrix_shape, result.dtype)
    found = [0] * len(blocks)
    with translated(result.path), Source(result.stored_matrix, result.path) as source:
        work = _PieceCheck(probes, result.dtype)
        todo = pieces(result.stored_matrix, result.axis, blocks)
        for piece, sums in each(source, work, todo):
            _add(total, sums, piece)
            for block, checksum, size in sums.checksums:
                found[block] = combine(found[block], checksum, size)
        bytes_read = source.bytes_read
    expected = entries["checksum"].tolist()
    corrupt = tuple(b for b, f, e in zip(blocks, found, expected, strict=True) if f != e)
    return total, corrupt, bytes_read


class _PieceCheck:
    """Computes the sums and checksums of a piece, in any thread."""

    def __init__(self, probes: Probes | None, dtype: np.dtype) -> None:
        self._probes, self._dtype = probes, dtype
        self._right = (
            in_double_precision(probes.right) if probes and probes.right is not None else None
        )
        self._left = (
            in_double_precision(probes.left) if probes and probes.left is not None else None
        )
        self._real = probes is not None and probes.pairing == "real inner product"

    def __call__(self, piece: Piece, values: np.ndarray) -> Sums:
        rows, columns = values.shape
        sums = zero_sums(self._probes, rows, columns, self._dtype)
        with np.errstate(all="ignore"):
            for block, region in piece.parts:
                part = values[
                    within(region[0], piece.region[0]), within(region[1], piece.region[1])
                ]
                sums.checksums.append((block, self._part(sums, piece, region, part), part.nbytes))
        return sums

    def _part(self, sums: Sums, piece: Piece, region: Region, part: np.ndarray) -> int:
        """Add up a part of a block in slabs; return its checksum."""
        checksum = 0
        height = max(1, _SLAB_BYTES // max(1, part.shape[1] * part.itemsize))
        for top in range(0, len(part), height):
            slab = np.ascontiguousarray(part[top : top + height])
            checksum = block_checksum(slab, checksum)
            start = region[0].start + top
            rows = slice(start, start + len(slab))
            self._slab(sums, piece, (rows, region[1]), in_double_precision(slab))
        return checksum

    def _slab(self, sums: Sums, piece: Piece, region: Region, slab: np.ndarray) -> None:
        real = slab.view(np.float64)
        here = within(region[0], piece.region[0]), within(region[1], piece.region[1])
        if self._right is not None and sums.right is not None and sums.rows is not None:
            matrix = slab.conj() if self._real else slab
            product = np.einsum("ij,j->i", matrix, self._right[region[1]])
            sums.right[here[0]] += product.real if self._real else product
            sums.rows[here[0]] += np.einsum("ij,ij->i", real, real)
        if self._left is not None and sums.left is not None and sums.columns is not None:
            vector = self._left[region[0]]
            product = np.einsum("i,ij->j", vector.conj() if self._real else vector, slab)
            sums.left[here[1]] += product.real if self._real else product
            squares = np.einsum("ij,ij->j", real, real)
            if slab.dtype.kind == "c":
                squares = squares.reshape(-1, 2).sum(1)
            sums.columns[here[1]] += squares
        # A sum is finite only if its terms are; count them one by one only if it is not.
        if not math.isfinite(float(real.sum())):
            sums.nonfinite += int(slab.size - np.count_nonzero(np.isfinite(slab)))


def _add(total: Sums, sums: Sums, piece: Piece) -> None:
    rows, columns = piece.region
    total.nonfinite += sums.nonfinite
    with np.errstate(all="ignore"):
        for name, squares, where in (("right", "rows", rows), ("left", "columns", columns)):
            whole, part = getattr(total, name), getattr(sums, name)
            if whole is None or part is None:
                continue
            whole[where] += part
            getattr(total, squares)[where] += getattr(sums, squares)


def _asymmetry(result: Result, probes: Probes, total: Sums) -> float | None:
    """Return the largest relative difference of M v and v M; None if it is not defined."""
    if result.operation not in SYMMETRIC or total.right is None or total.left is None:
        return None
    if probes.right is None or probes.left is None or total.rows is None:
        return None
    if not np.array_equal(probes.right, probes.left):
        return None
    errors = relative_errors(total.left, total.right, total.rows, probes.right, probes.floor)
    return float(errors[np.isfinite(errors)].max(initial=0))
