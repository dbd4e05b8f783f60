"""What the answers share: the matrix, the memory, the products that are kept, and requirements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from outputs._analysis import lapack
from outputs._analysis.answer import Answer
from outputs._analysis.budget import Budget
from outputs._analysis.journal import Journal, NoJournal
from outputs._analysis.matrices import (
    AnyMatrix,
    DenseMatrix,
    SparseMatrix,
    StoredDense,
    StoredSparse,
)
from outputs._analysis.quadrature import VECTORS
from outputs._errors import ResultError
from outputs._format.description import DIAGONAL, FULL

Report = Callable[[str], None]
ROUNDING = "bound for rounding: size x ε x the largest"
_TEST_VECTORS = 4
_INDEX_BYTES = 8


class Workspace:
    """A matrix, and what is known of it.

    Args:
        result: An open, complete result.
        budget: The memory that the analysis may take.
        report: Called with what is being done.

    Attributes:
        matrix: The matrix.
        budget: The memory that is left to vectors and dense matrices.
        journal: Keeps products, so that an interrupted iteration continues.
        report: Called with what is being done.
        structure: Which entries of the matrix the file holds.
        asymmetry: ‖A - Aᴴ‖ / ‖A‖, the largest over the points, where it was needed.

    Raises:
        ResultError: If the matrix is empty or damaged, or has entries that are not finite.
    """

    def __init__(
        self,
        result: StoredDense | StoredSparse,
        budget: Budget,
        report: Report = lambda text: None,
    ) -> None:
        self.matrix, self.budget = _opened(result, budget)
        self.journal: Journal = NoJournal()
        self.report = report
        self.structure = result.structure
        self._selection = result.selection
        self._has_same_lines = result.selection is None or np.array_equal(
            result.row_numbers, result.column_numbers
        )
        self.asymmetry: float | None = None
        if 0 in self.matrix.shape or self.matrix.count == 0:
            raise ResultError(f"{self.matrix.path} holds an empty matrix.")
        report("checksums")
        self.matrix.require_sound()

    @property
    def _dense_bytes(self) -> int:
        rows, columns = self.matrix.shape
        return rows * columns * self.matrix.dtype.itemsize

    @property
    def fits(self) -> bool:
        """Whether the matrix, or that of one point, fits in memory."""
        return self._dense_bytes <= self.budget.free

    def name(self, point: int) -> str:
        """Return what the matrix of a point is called in a message."""
        which = "" if self.matrix.count is None else f" of point {point}"
        return f"The matrix{which} in {self.matrix.path}"

    @property
    def enough(self) -> str:
        """The sentence that says with how much memory the matrix fits."""
        try:
            self.require_whole("The matrix in memory")
        except ResultError as error:
            return str(error)
        return ""

    def require_whole(self, what: str) -> None:
        """Check that the matrix fits in memory."""
        self.budget.require(self._dense_bytes, what)

    def require_one(self, what: str) -> None:
        """Check that there is one matrix, for answers that are found by products."""
        if self.matrix.count is not None:
            self.require_whole(f"{what} of many points: the matrix of one of them")

    def require_probes(self, probes: int, what: str) -> None:
        """Check that so many random vectors fit in memory."""
        needed = VECTORS * self.matrix.shape[0] * probes * self.matrix.dtype.itemsize
        self.budget.require(needed, f"{what} with {probes} random vectors")

    def require_all_entries(self, what: str) -> None:
        """Check that the file holds more than the diagonal, or the diagonal blocks."""
        if self.structure != FULL:
            held = "diagonal" if self.structure == DIAGONAL else "diagonal blocks"
            raise ResultError(
                f"{self.matrix.path} holds the {held} of a matrix only, without its {what}; "
                "--trace fits it."
            )

    def require_square(self, what: str) -> None:
        """Check that the matrix is square."""
        self.require_all_entries(what)
        rows, columns = self.matrix.shape
        if rows != columns:
            raise ResultError(
                f"{self.matrix.path} is {rows} x {columns}: a matrix that is not square has no "
                f"{what}. --singular-values and --gram fit any matrix."
            )
        if not self._has_same_lines:
            raise ResultError(
                f"{self.matrix.path} holds {self._selection}: a part whose rows are not its "
                f"columns has no {what}. --singular-values and --gram fit any matrix."
            )

    def each(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return a function of the matrix in memory, or of those of all points, stacked."""
        if self.matrix.count is None:
            return function(self.matrix.read())
        return np.stack([function(self.matrix.read(n)) for n in range(self.matrix.count)])

    def symmetric(self, a: np.ndarray) -> np.ndarray:
        """Return the symmetric part of a matrix that is symmetric up to rounding, in its place."""
        self._note_asymmetry(lapack.symmetrize(a))
        return a

    @property
    def is_symmetric(self) -> bool:
        """Whether A X and Aᴴ X agree, up to rounding, for a few random X."""
        return self._measured_asymmetry() <= self._allowed

    def require_symmetric(self) -> None:
        """Check that the matrix is symmetric, by products with random vectors."""
        self._note_asymmetry(self._measured_asymmetry())

    @property
    def _allowed(self) -> float:
        return self.matrix.precision**0.5

    def _measured_asymmetry(self) -> float:
        if self.asymmetry is None:
            shape = self.matrix.shape[0], _TEST_VECTORS
            vectors = np.random.default_rng(2).standard_normal(shape)
            right, left = self.product(vectors), self.adjoint(vectors)
            # The square of ‖A x‖ has the expectation ‖A‖² in the Frobenius norm.
            norm = float(np.linalg.norm(right))
            self.asymmetry = float(np.linalg.norm(right - left)) / norm if norm else 0.0
        return self.asymmetry

    def _note_asymmetry(self, found: float) -> None:
        self.asymmetry = max(found, self.asymmetry or 0.0)
        if found > self._allowed:
            raise ResultError(
                f"{self.matrix.path} is not symmetric: ‖A - Aᵀ‖ is {found:.1e} of ‖A‖, and "
                f"rounding explains {self._allowed:.1e}. Its eigenvalues are not computed; "
                "--singular-values fits any matrix."
            )

    def product(self, right: np.ndarray) -> np.ndarray:
        """Return A X for X of shape (columns, vectors), by a pass over the file or the journal."""
        return self.journal.product("A", right, lambda: self._passing(self.matrix.product, right))

    def adjoint(self, left: np.ndarray) -> np.ndarray:
        """Return Aᴴ Y for Y of shape (rows, vectors), by a pass over the file or the journal."""
        return self.journal.product(
            "A^H", left, lambda: self._passing(self.matrix.adjoint_product, left)
        )

    def squared(self, vectors: np.ndarray) -> np.ndarray:
        """Return A Aᴴ Y or Aᴴ A X, whichever of them is the smaller matrix."""
        rows, columns = self.matrix.shape
        if rows < columns:
            return self.product(self.adjoint(vectors))
        return self.adjoint(self.product(vectors))

    def _passing(
        self, multiply: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray
    ) -> np.ndarray:
        self.report("")
        return multiply(vectors)

    @property
    def is_thin(self) -> bool:
        """Whether a square of the shorter side, with a band as high, fits several times."""
        short = min(self.matrix.shape)
        return self.matrix.count is None and self._band_bytes(short) <= self.budget.free

    def _band_bytes(self, short: int) -> int:
        return 8 * short * short * self.matrix.dtype.itemsize

    def bands(self) -> Iterator[np.ndarray]:
        """Yield the matrix, or its adjoint if it is wide, in bands of whole rows."""
        rows, columns = self.matrix.shape
        short, long = min(rows, columns), max(rows, columns)
        height = max(short, 2**20 // short)
        for start in range(0, long, height):
            part = slice(start, min(start + height, long))
            if rows >= columns:
                yield self.matrix.block(part, slice(0, columns))
            else:
                yield self.matrix.block(slice(0, rows), part).conj().T

    def answer(
        self,
        name: str,
        values: np.ndarray | float,
        error: tuple[np.ndarray | float, str],
        method: str,
        summary: str,
        request: object = "",
    ) -> Answer:
        """Return an answer, with what is known of the symmetry of the matrix."""
        facts = {} if self.asymmetry is None else {"asymmetry": self.asymmetry}
        asked = "all" if request is None else str(request)
        return Answer(name, np.asarray(values), *error, method, summary, asked, facts)


def ends(values: np.ndarray, count: int | None) -> np.ndarray:
    """Return so many numbers from both ends of the last dimension; all for None."""
    if count is None or 2 * count >= values.shape[-1]:
        return values
    return np.concatenate([values[..., :count], values[..., -count:]], axis=-1)


def _opened(result: StoredDense | StoredSparse, budget: Budget) -> tuple[AnyMatrix, Budget]:
    if not hasattr(result, "entries"):
        return DenseMatrix(result), budget  # pyright: ignore[reportArgumentType]
    sparse: StoredSparse = result  # pyright: ignore[reportAssignmentType]
    kept = 2 * sparse.entries * (sparse.dtype.itemsize + _INDEX_BYTES)
    if kept > budget.free // 2:
        return SparseMatrix(sparse, is_kept=False), budget
    return SparseMatrix(sparse, is_kept=True), replace(budget, free=budget.free - kept)
