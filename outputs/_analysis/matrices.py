"""A stored matrix as linear algebra sees it: read whole, by blocks, or multiplied out of core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import Axis
from outputs._format.description import BLOCKS
from outputs._format.ledger import Ledger
from outputs._format.ragged_matrices import RaggedMatrices
from outputs._format.selection import Selection
from outputs._format.stacked_matrices import Matrix
from outputs._scanning.checksums import examined_blocks
from outputs._scanning.parallel import Piece, Source, each, pieces
from outputs._scanning.sequential import pieces as sequential_pieces
from outputs._storage.files import translated

if TYPE_CHECKING:
    import scipy.sparse


class Stored(Protocol):
    """An open result; see `outputs._reading.result_file.ResultFile`."""

    path: Path
    dtype: np.dtype
    selection: Selection | None
    structure: str

    @property
    def row_numbers(self) -> np.ndarray:
        """The numbers of the rows in the whole matrix."""
        ...

    @property
    def column_numbers(self) -> np.ndarray:
        """The numbers of the columns in the whole matrix."""
        ...


class StoredDense(Stored, Protocol):
    """An open dense result; see `outputs.Result`."""

    matrix_shape: tuple[int, int]
    point_count: int | None
    is_ragged: bool
    axis: Axis
    ledger: Ledger

    def matrix(self) -> Matrix:
        """Return the complete matrix with two dimensions."""
        ...


class StoredSparse(Stored, Protocol):
    """An open sparse result; see `outputs.SparseResult`."""

    shape: tuple[int, int]
    entries: int

    def ranges(self) -> Iterator[tuple[int, scipy.sparse.csr_array]]:
        """Yield the matrix as ranges of rows: (first row, rows)."""
        ...

    def damaged_pieces(self) -> list[tuple[str, int, int]]:
        """Return the pieces whose checksum differs."""
        ...


class DenseMatrix:
    """The matrix of a dense result.

    Args:
        result: The result.

    Attributes:
        path: The file.
        count: Number of points; None for a single matrix.
        shape: (rows, columns) of the matrix, or of that of each point.
        dtype: float64 or complex128, in which everything is computed.
        precision: Spacing of the numbers that the file stores, relative to them.

    Raises:
        ResultError: If the matrices of many points have different sizes.
    """

    def __init__(self, result: StoredDense) -> None:
        self._result, self.path, self.count = result, result.path, result.point_count
        if result.is_ragged and result.structure != BLOCKS:
            raise ResultError(
                f"{self.path} holds the matrices of {self.count} points of different sizes, which "
                "are not analysed; result.point(0) is the first of them, as an array."
            )
        rows, columns = result.matrix_shape
        self.shape: tuple[int, int] = (rows // (self.count or 1), columns)
        self.dtype, self.precision = _working(result.dtype)
        self._matrix = result.matrix()
        entries = np.sort(result.ledger.committed, order="start")
        starts, stops = entries["start"].tolist(), entries["stop"].tolist()
        self._blocks = list(zip(starts, stops, strict=True))

    def require_sound(self) -> None:
        """Check every block against its checksum, and that all entries are finite.

        Raises:
            ResultError: If a block is damaged, or an entry is NaN or infinite.
        """
        ledger = self._result.ledger.committed
        with translated(self.path):
            found = examined_blocks(self._matrix, self.path, self._result.axis, ledger)
        if found.damaged:
            start, stop = found.damaged[0]
            raise ResultError(
                f"{self.path} is damaged: {len(found.damaged)} blocks do not have their checksum, "
                f"the first {self._result.axis} {start}:{stop}."
            )
        if found.nonfinite:
            raise _not_finite(self.path, found.nonfinite, f"the first at {found.first[0]}")

    @property
    def is_of_blocks(self) -> bool:
        """Whether there are only the diagonal blocks of a square matrix."""
        return self.count is None and isinstance(self._matrix, RaggedMatrices)

    def diagonal_of_blocks(self) -> np.ndarray:
        """Read the diagonal of a matrix of which there are only the diagonal blocks."""
        assert isinstance(self._matrix, RaggedMatrices)
        with translated(self.path):
            return self._matrix.diagonal().astype(self.dtype, copy=False)

    def read(self, point: int = 0) -> np.ndarray:
        """Read the matrix, or that of a point, into memory of its own, in C order."""
        top = point * self.shape[0]
        values = np.empty(self.shape, self.dtype)
        with translated(self.path):
            if self.count is not None:
                values[:] = self._matrix[top : top + self.shape[0], 0 : self.shape[1]]
                return values
            for region, part in sequential_pieces(self._matrix):
                values[region] = part
        return values

    def block(self, rows: slice, columns: slice) -> np.ndarray:
        """Read the entries of a range of rows by a range of columns."""
        with translated(self.path):
            return self._matrix[rows, columns].astype(self.dtype, copy=False)

    def product(self, right: np.ndarray) -> np.ndarray:
        """Return A X for X of shape (columns, vectors), in one pass over the file."""
        total = np.zeros((self.shape[0], right.shape[1]), np.result_type(self.dtype, right))

        def work(piece: Piece, values: np.ndarray) -> np.ndarray:
            return self._wide(values) @ right[piece.region[1]]

        self._sum(work, total, 0)
        return total

    def adjoint_product(self, left: np.ndarray) -> np.ndarray:
        """Return Aᴴ Y for Y of shape (rows, vectors), in one pass over the file."""
        left = left.conj()
        total = np.zeros((self.shape[1], left.shape[1]), np.result_type(self.dtype, left))

        def work(piece: Piece, values: np.ndarray) -> np.ndarray:
            return self._wide(values).T @ left[piece.region[0]]

        self._sum(work, total, 1)
        return total.conj()

    def _sum(self, work: Any, total: np.ndarray, axis: int) -> None:
        todo = pieces(self._matrix, self._result.axis, self._blocks)
        with translated(self.path), Source(self._matrix, self.path) as source:
            for piece, part in each(source, work, todo):
                total[piece.region[axis]] += part

    def _wide(self, values: np.ndarray) -> np.ndarray:
        return values.astype(self.dtype, copy=False)


class SparseMatrix:
    """The matrix of a sparse result, with the same interface as `DenseMatrix`.

    Args:
        result: The result.
        is_kept: Whether the compressed rows stay in memory; else each product reads the file.
    """

    count = None

    def __init__(self, result: StoredSparse, *, is_kept: bool) -> None:
        self._result, self.path, self.shape = result, result.path, result.shape
        self.dtype, self.precision = _working(result.dtype)
        self._kept: list[tuple[int, Any]] | None = None
        if is_kept:
            self._kept = list(self._ranges())

    def _ranges(self) -> Iterator[tuple[int, Any]]:
        if self._kept is not None:
            yield from self._kept
            return
        for start, rows in self._result.ranges():
            yield start, rows.astype(self.dtype, copy=False)

    def require_sound(self) -> None:
        """Check the arrays against their checksums, and that all entries are finite."""
        if found := self._result.damaged_pieces():
            name, start, stop = found[0]
            raise ResultError(
                f"{self.path} is damaged: {name} {start}:{stop} do not have their checksum."
            )
        count = sum(int((~np.isfinite(rows.data)).sum()) for _, rows in self._ranges())
        if count:
            raise _not_finite(self.path, count, "outputs.verify counts them too")

    def read(self, point: int = 0) -> np.ndarray:
        """Read the matrix as a dense array in C order."""
        return self.block(slice(0, self.shape[0]), slice(0, self.shape[1]))

    def block(self, rows: slice, columns: slice) -> np.ndarray:
        """Read the entries of a range of rows by a range of columns, zeros included."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        values = np.zeros((height, width), self.dtype)
        for start, part in self._ranges():
            first, last = max(start, rows.start), min(start + part.shape[0], rows.stop)
            if first < last:
                inside = part[first - start : last - start, columns]
                values[first - rows.start : last - rows.start] = inside.toarray()
        return values

    def product(self, right: np.ndarray) -> np.ndarray:
        """Return A X for X of shape (columns, vectors)."""
        return np.concatenate([rows @ right for _, rows in self._ranges()])

    def adjoint_product(self, left: np.ndarray) -> np.ndarray:
        """Return Aᴴ Y for Y of shape (rows, vectors)."""
        total = np.zeros((self.shape[1], left.shape[1]), np.result_type(self.dtype, left))
        for start, rows in self._ranges():
            total += rows.conj().T @ left[start : start + rows.shape[0]]
        return total


AnyMatrix = DenseMatrix | SparseMatrix


def diagonal(matrix: AnyMatrix) -> np.ndarray:
    """Read the diagonal of a single square matrix, or of its blocks, of shape (rows,)."""
    if isinstance(matrix, DenseMatrix) and matrix.is_of_blocks:
        return matrix.diagonal_of_blocks()
    size, step = matrix.shape[0], 512
    parts = (slice(start, min(start + step, size)) for start in range(0, size, step))
    return np.concatenate([np.diagonal(matrix.block(part, part)) for part in parts])


def _working(dtype: np.dtype) -> tuple[np.dtype, float]:
    wide: np.dtype = np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    stored = dtype if dtype.kind in "fc" else wide
    return wide, float(np.finfo(stored).eps)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _not_finite(path: Path, count: int, where: str) -> ResultError:
    return ResultError(
        f"{path} has {count} entries that are NaN or infinite, {where}; no such matrix is analysed."
    )
