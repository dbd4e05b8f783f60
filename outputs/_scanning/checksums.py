"""Check the blocks of a file in one pass: their checksums, and their products with a vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
_BYTES_IN_CACHE = 2**20
_Span = tuple[int, int]
# What is known of a part of some lines, by the lines.
_LineSums = Callable[[np.ndarray, slice], np.ndarray]


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


_Answer = tuple[int, int, int, slice, np.ndarray, Examined]


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
    found = [0] * len(blocks)
    products = None if probe is None else probe.zeros(matrix.dtype)

    nonfinite: dict[int, list[Examined]] = {}

    def work(piece: Piece, values: np.ndarray) -> list[_Answer]:
        answers = []
        for block, region, part in _parts(piece, values):
            lines, across = _oriented(region, axis)
            checksum, sums = 0, np.zeros(0)
            if probe is not None and products is not None:
                sums = np.zeros(lines.stop - lines.start, products.dtype)
            for rows in _cached(part):
                checksum = block_checksum(part[rows], checksum)
                if probe is None:
                    continue
                if axis == Axis.ROWS:
                    sums[rows] = probe.multiplied(part[rows], across)
                else:
                    first = across.start
                    beside = slice(first + rows.start, first + rows.stop)
                    sums += probe.multiplied(part[rows].T, beside)
            bad = Examined()
            if probe is None or not probe.is_finite(sums):
                bad = _not_finite(part, region)
            answers.append((block, checksum, part.nbytes, lines, sums, bad))
        return answers

    with Source(matrix, path) as source:
        for _, answers in each(source, work, pieces(matrix, axis, blocks)):
            for block, checksum, size, lines, sums, bad in answers:
                if bad.nonfinite:
                    nonfinite.setdefault(block, []).append(bad)
                found[block] = combine(found[block], checksum, size)
                if products is not None:
                    products[lines] += sums
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


def _cached(values: np.ndarray) -> Iterator[slice]:
    """Yield ranges of rows so small that what reads them first leaves them in the cache."""
    rows = max(1, _BYTES_IN_CACHE * len(values) // max(1, values.nbytes))
    for start in range(0, len(values), rows):
        yield slice(start, min(start + rows, len(values)))


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

    def work(piece: Piece, values: np.ndarray) -> list[tuple[slice, np.ndarray]]:
        with np.errstate(all="ignore"):
            return [
                (
                    _oriented(region, axis)[0],
                    np.square(np.abs(part), dtype=np.float64).sum(axis=1 - axis.dimension),
                )
                for _, region, part in _parts(piece, values)
            ]

    for _, answers in each(source, work, pieces(matrix, axis, blocks)):
        for lines, squares in answers:
            total[lines] += squares
    return total


def _parts(piece: Piece, values: np.ndarray) -> Iterator[tuple[int, Region, np.ndarray]]:
    """Yield the blocks in a piece: their index, their region and their entries."""
    rows, columns = piece.region
    for block, region in piece.parts:
        yield block, region, values[within(region[0], rows), within(region[1], columns)]


def _oriented(region: Region, axis: Axis) -> tuple[slice, slice]:
    """Return the lines of a region, and what it holds of them."""
    return (region[0], region[1]) if axis == Axis.ROWS else (region[1], region[0])


def _with_any(blocks: list[_Span], lines: np.ndarray) -> list[_Span]:
    return [(start, stop) for start, stop in blocks if lines[start:stop].any()]
