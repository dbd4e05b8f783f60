"""Answers from a matrix that is in memory, by SciPy's LAPACK routines, which overwrite it.

A matrix in C order is passed as its transpose, which is in LAPACK's own order: no copy is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from outputs._errors import ResultError
from outputs._optional import load

_BAND, _LINES = 256, 32


def symmetrize(a: np.ndarray) -> float:
    """Replace a square matrix by its symmetric (Hermitian) part, in place.

    Returns:
        ‖A - Aᴴ‖ / ‖A‖ of the matrix before, in the Frobenius norm; 0 for a zero matrix.
    """
    size, squares, difference = len(a), 0.0, 0.0
    bands = [slice(start, min(start + _BAND, size)) for start in range(0, size, _BAND)]
    for number, rows in enumerate(bands):
        for columns in bands[number:]:
            one, other = a[rows, columns], a[columns, rows].conj().T
            weight = 1 if rows == columns else 2
            difference += weight * _squared_norm(one - other)
            squares += weight / 2 * (_squared_norm(one) + _squared_norm(other))
    if not difference:
        return 0.0
    for number, rows in enumerate(bands):
        for columns in bands[number:]:
            half = (a[rows, columns] + a[columns, rows].conj().T) / 2
            a[rows, columns], a[columns, rows] = half, half.conj().T
    return float(np.sqrt(difference / squares))


def _squared_norm(a: np.ndarray) -> float:
    return float(np.vdot(a, a).real)


def eigenvalues(a: np.ndarray) -> np.ndarray:
    """Return all eigenvalues of a symmetric (Hermitian) matrix, ascending."""
    linalg = load("scipy.linalg", "reading", "An analysis")
    return linalg.eigh(a.T, eigvals_only=True, overwrite_a=True, check_finite=False, driver="ev")


def singular_values(a: np.ndarray) -> np.ndarray:
    """Return all singular values, descending."""
    linalg = load("scipy.linalg", "reading", "An analysis")
    return linalg.svdvals(a.T, overwrite_a=True, check_finite=False)


def triangular_factor(bands: Iterable[np.ndarray]) -> np.ndarray:
    """Return the factor R of a tall matrix A = Q R whose rows come in bands.

    It has the singular values of A, to rounding (J. Demmel and others, "Communication-optimal
    parallel and sequential QR and LU factorizations", SIAM J. Sci. Comput. 34, 2012).
    """
    factor: np.ndarray | None = None
    for band in bands:
        stacked = band if factor is None else np.concatenate([factor, band])
        factor = np.asarray(np.linalg.qr(stacked, mode="r"))
    assert factor is not None
    return factor


@dataclass(frozen=True)
class Factors:
    """A square matrix A, factored by LU.

    Attributes:
        lu: The factors of the transpose of A, as LAPACK leaves them.
        pivots: The rows that were exchanged.
        reciprocal: An estimate of the reciprocal condition number, in the infinity norm.
    """

    lu: np.ndarray
    pivots: np.ndarray
    reciprocal: float

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Solve A x = b for b of shape (rows,) or (rows, vectors)."""
        linalg = load("scipy.linalg", "reading", "An analysis")
        return linalg.lu_solve((self.lu, self.pivots), b, trans=1, check_finite=False)

    def log_determinant(self) -> tuple[complex, float]:
        """Return the sign (or phase) of det A and the logarithm of its magnitude."""
        diagonal = np.diagonal(self.lu)
        swaps = int((self.pivots != np.arange(len(self.pivots))).sum())
        phase = complex(np.prod(diagonal / np.abs(diagonal)) * (-1) ** swaps)
        return phase, float(np.log(np.abs(diagonal)).sum())


def factored(a: np.ndarray, name: str, precision: float) -> Factors:
    """Factor a square matrix.

    Args:
        a: The matrix, which is overwritten.
        name: What it is, for the message.
        precision: Spacing of the numbers that the file stores, relative to them.

    Raises:
        ResultError: If it is singular to working precision.
    """
    lapack = load("scipy.linalg", "reading", "An analysis").get_lapack_funcs
    getrf, gecon = lapack(("getrf", "gecon"), (a,))
    bands = (a[start : start + _LINES] for start in range(0, len(a), _LINES))
    norm = max(float(np.abs(band).sum(1).max()) for band in bands)
    lu, pivots, _ = getrf(a.T, overwrite_a=True)
    reciprocal = float(gecon(lu, norm)[0]) if norm and np.diagonal(lu).all() else 0.0
    if not reciprocal > precision:
        raise ResultError(
            f"{name} is singular to working precision (its reciprocal condition number is "
            f"{reciprocal:.1e}, the rounding of its numbers {precision:.1e}): neither its "
            "determinant nor a solution can be trusted."
        )
    return Factors(lu, pivots, reciprocal)
