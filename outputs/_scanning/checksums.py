"""Check the blocks of a file in one pass: their checksums, and their products with a vector."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from outputs._format.axes import Axis
from outputs._format.stacked_matrices import Matrix
from outputs._scanning.parallel import Piece, Source, each, pieces
from outputs._scanning.reference import LineProbe
from outputs._storage.crc import combine, crc32
from outputs._storage.regions import Region, within

_LOCATIONS_KEPT = 5
_Span = tuple[int, int]


@dataclass(frozen=True)
class Examined:
    """What was found in the committed blocks of a file; lines count from the first of the file.

    Attributes:
        damaged: The ranges whose stored data fail the ledger's checksum, in order.
        differing: The ranges of the others in which a line does not have its product, in order.
        nonfinite: The number of NaN and infinities in the blocks that are not damaged.
        first: The (row, column) of the first few of these.
    """

    damaged: list[_Span] = field(default_factory=list)
    differing: list[_Span] = field(default_factory=list)
    nonfinite: int = 0
    first: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class _Answer:
    """What was found in a piece.

    Attributes:
        checksums: Of each of its parts.
        sums: The products of its lines with the vector; zeros without one.
        bad: The block and its entries that are not finite.
    """

    checksums: list[int]
    sums: np.ndarray
    bad: list[tuple[int, Examined]]


def block_checksum(values: np.ndarray, value: int = 0) -> int:
    """Return the CRC-32 of a block's bytes in C order, continued from ``value``."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return crc32(flat.data, value)


def examined_blocks(
    matrix: Matrix, path: Path, axis: Axis, committed: np.ndarray, probe: LineProbe | None = None
) -> Examined:
    """Find the committed blocks that are damaged or differ from a product, and count NaN.

    Several threads read every byte once. Only blocks that seem to differ are read again, for the
    norms of their lines, to which errors are relative.

    Args:
        matrix: The matrix, of shape (rows, columns).
        path: The matrix's file.
        axis: The axis along which the blocks run.
        committed: Entries of ``LEDGER_DTYPE``, without overlap.
        probe: The vector and the products of all lines of the matrix; None compares no products.

    Raises:
        ResultError: If the matrix is stored in a way that the format does not define.
    """
    committed = np.sort(committed, order="start")
    blocks = list(zip(committed["start"].tolist(), committed["stop"].tolist(), strict=True))
    found, itemsize = [0] * len(blocks), matrix.dtype.itemsize
    products = None if probe is None else probe.zeros(matrix.dtype)
    kind = np.float64 if products is None else products.dtype
    nonfinite: dict[int, list[Examined]] = {}

    def work(piece: Piece, values: np.ndarray) -> _Answer:
        lines, across = _oriented(piece.region, axis)
        sums, is_finite = np.zeros(lines.stop - lines.start, kind), False
        if probe is not None:
            sums = probe.multiplied(values if axis == Axis.ROWS else values.T, across)
            is_finite = probe.is_finite(sums)
        answer = _Answer([], sums, [])
        for block, region in piece.parts:
            part = values[within(region[0], piece.region[0]), within(region[1], piece.region[1])]
            answer.checksums.append(block_checksum(part))
            if not is_finite and (bad := _not_finite(part, region)).nonfinite:
                answer.bad.append((block, bad))
        return answer

    with Source(matrix, path) as source:
        for piece, answer in each(source, work, pieces(matrix, axis, blocks)):
            for (block, region), checksum in zip(piece.parts, answer.checksums, strict=True):
                found[block] = combine(found[block], checksum, _entries(region) * itemsize)
            for block, bad in answer.bad:
                nonfinite.setdefault(block, []).append(bad)
            if products is not None:
                products[_oriented(piece.region, axis)[0]] += answer.sums
        expected = committed["checksum"].tolist()
        damaged = [block for block, a, b in zip(blocks, found, expected, strict=True) if a != b]
        sound_ones = [n for n, block in enumerate(blocks) if block not in {*damaged}]
        bad = [each for n in sound_ones for each in nonfinite.get(n, ())]
        first = sorted(place for each in bad for place in each.first)[:_LOCATIONS_KEPT]
        count = sum(each.nonfinite for each in bad)
        if probe is None or products is None:
            return Examined(damaged, [], count, first)
        sound = sorted({*blocks} - {*damaged})
        suspects = _with_any(sound, probe.differing(products, np.zeros(len(products))))
        squares = _squared_norms(source, matrix, axis, suspects)
    differing = _with_any(suspects, probe.differing(products, squares))
    return Examined(damaged, differing, count, first)


def _not_finite(values: np.ndarray, region: Region) -> Examined:
    # A NaN or infinity spreads to the sum; that of large finite entries may be infinite too.
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):
            return Examined()
    bad = ~np.isfinite(values)
    places = np.argwhere(bad)[:_LOCATIONS_KEPT] + [part.start for part in region]
    return Examined(
        nonfinite=int(bad.sum()), first=[(row, column) for row, column in places.tolist()]
    )


def _squared_norms(source: Source, matrix: Matrix, axis: Axis, blocks: list[_Span]) -> np.ndarray:
    """Return the squared norms of the lines of some blocks, of shape (all lines,)."""
    total = np.zeros(axis.lines(matrix.shape))

    def work(piece: Piece, values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.square(np.abs(values), dtype=np.float64).sum(axis=1 - axis.dimension)

    for piece, squares in each(source, work, pieces(matrix, axis, blocks)):
        total[piece.region[axis.dimension]] += squares
    return total


def _entries(region: Region) -> int:
    return math.prod(part.stop - part.start for part in region)


def _oriented(region: Region, axis: Axis) -> tuple[slice, slice]:
    """Return the lines of a region, and what it holds of them."""
    return (region[0], region[1]) if axis == Axis.ROWS else (region[1], region[0])


def _with_any(blocks: list[_Span], lines: np.ndarray) -> list[_Span]:
    return [(start, stop) for start, stop in blocks if lines[start:stop].any()]
