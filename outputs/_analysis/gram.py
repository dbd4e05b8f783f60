"""The products of a matrix with its own adjoint, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from outputs._analysis.answer import Answer
from outputs._analysis.journal import Journal
from outputs._analysis.matrices import AnyMatrix
from outputs._analysis.workspace import Workspace
from outputs._errors import ResultError

Side = Literal["rows", "columns"]
_PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Gram:
    """A Aᴴ, the products of rows, or Aᴴ A, those of columns; Hermitian.

    Attributes:
        matrix: The matrix A.
        side: Whether rows or columns are multiplied.
        free: Bytes that a tile and its factors may take.
        journal: Keeps the tiles.
    """

    matrix: AnyMatrix
    side: Side
    free: int
    journal: Journal

    @property
    def size(self) -> int:
        """Rows and columns of the product."""
        return self.matrix.shape[self._axis]

    @property
    def _axis(self) -> int:
        return 0 if self.side == "rows" else 1

    @property
    def height(self) -> int:
        """Rows of a tile: as many as fit, since each tile reads its factors anew."""
        entries = max(1, self.free // (3 * self.matrix.dtype.itemsize))
        return min(self.size, max(1, int(entries**0.5)))

    def tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield the tiles on and below the diagonal as (rows, columns, entries)."""
        bands = [
            slice(start, min(start + self.height, self.size))
            for start in range(0, self.size, self.height)
        ]
        for number, rows in enumerate(bands):
            for columns in bands[: number + 1]:
                place = np.array([rows.start, rows.stop, columns.start, columns.stop])
                compute = partial(self._tile, rows, columns)
                yield rows, columns, self.journal.product(f"gram {self.side}", place, compute)

    def _tile(self, rows: slice, columns: slice) -> np.ndarray:
        height = max(rows.stop - rows.start, columns.stop - columns.start)
        width = max(1, _PIECE_BYTES // (height * self.matrix.dtype.itemsize))
        length = self.matrix.shape[1 - self._axis]
        total = np.zeros((rows.stop - rows.start, columns.stop - columns.start), self.matrix.dtype)
        for start in range(0, length, width):
            across = slice(start, min(start + width, length))
            left = self._part(rows, across)
            right = left if rows == columns else self._part(columns, across)
            total += left @ right.conj().T
        return total

    def _part(self, lines: slice, across: slice) -> np.ndarray:
        if self.side == "rows":
            return self.matrix.block(lines, across)
        return self.matrix.block(across, lines).conj().T


def gram(work: Workspace, side: Side) -> Answer:
    """Return the products of all rows or columns: as tiles, or of many points as values.

    Args:
        work: The matrix.
        side: ``rows`` or ``columns``.
    """
    require_gram(work, side)
    length = work.matrix.shape[1 if side == "rows" else 0]
    error = (
        np.array(length * work.matrix.precision),
        "bound for rounding, relative to the norms of both lines",
    )
    size = work.matrix.shape[0 if side == "rows" else 1]
    summary = f"{size:,} x {size:,}, in the file under gram_{side}/values"
    if work.matrix.count is None:
        tiles = Gram(work.matrix, side, work.budget.free, work.journal)
        answer = work.answer(f"gram_{side}", np.empty(0), error, "by tiles", summary, side)
        return replace(answer, tiles=tiles.tiles, shape=(size, size))
    values = work.each(lambda a: a @ a.conj().T if side == "rows" else a.conj().T @ a)
    summary = f"{work.matrix.count:,} of {summary}"
    return work.answer(f"gram_{side}", values, error, "in memory", summary, side)


def require_gram(work: Workspace, side: Side) -> None:
    """Check that `gram` can be found, before work starts."""
    work.require_all_entries("products of its rows and columns")
    if side not in ("rows", "columns"):
        raise ResultError(f"--gram={side}: rows and columns can be multiplied.")
    if work.matrix.count is not None:
        size = work.matrix.shape[0 if side == "rows" else 1]
        needed = (work.matrix.count + 2) * size * size * work.matrix.dtype.itemsize
        work.budget.require(needed, f"--gram {side} of {work.matrix.count} points")


def gram_in_memory(work: Workspace, side: Side) -> np.ndarray:
    """Return the products as one array, of shape (size, size) or (points, size, size)."""
    require_gram(work, side)
    size = work.matrix.shape[0 if side == "rows" else 1]
    work.budget.require(size * size * work.matrix.dtype.itemsize, f"--gram {side}")
    answer = gram(work, side)
    if answer.tiles is None:
        return answer.values
    values = np.empty(answer.shape, work.matrix.dtype)
    for rows, columns, tile in answer.tiles():
        values[rows, columns], values[columns, rows] = tile, tile.conj().T
    return values
