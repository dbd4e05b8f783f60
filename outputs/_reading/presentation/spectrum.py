"""Compute the eigenvalues of a Hessian, or the singular values of any other matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outputs._format.description import SYMMETRIC
from outputs._optional import load
from outputs._reading.presentation.protocols import ShownResult

_DENSE_ENTRIES = 1500**2
_VECTORS, _RESTARTS = 60, 6  # at most 60 * 6 multiplications, each one pass or two


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues or singular values of a matrix.

    Attributes:
        kind: "eigenvalues" or "singular values".
        values: Descending, float64; all of them, or those at the ends of the spectrum.
        method: Which values they are and how they were computed, as text for the picture.
    """

    kind: str
    values: np.ndarray
    method: str


def spectrum(result: ShownResult, count: int) -> Spectrum:
    """Compute all values of a small matrix, or those at the ends of a large one's spectrum.

    A real Hessian is treated as symmetric: if all values are computed, its symmetric part is used.
    A large matrix is never loaded: the Lanczos method multiplies by it out of core, from a fixed
    start vector, and reads the whole file once or twice for each step.

    Args:
        result: A complete result with finite entries.
        count: Number of values to compute of a large matrix.

    Raises:
        MissingDependencyError: If SciPy is needed and not installed.
        ResultError: If the file is damaged.
    """
    rows, columns = result.matrix_shape
    is_symmetric = result.operation in SYMMETRIC
    symmetric = is_symmetric and result.dtype.kind != "c" and rows == columns
    if result.selection is not None:
        symmetric = symmetric and np.array_equal(result.row_numbers, result.column_numbers)
    kind = "eigenvalues" if symmetric else "singular values"
    if 0 in result.matrix_shape:
        return Spectrum(kind, np.zeros(0), "of an empty matrix")
    if rows * columns <= _DENSE_ENTRIES or min(rows, columns) <= 2:
        return Spectrum(kind, _dense(result, symmetric), f"all {min(rows, columns):,}")
    count = min(count, min(rows, columns) - 2)
    values, converged = _lanczos(result, symmetric, max(1, count))
    which = f"{len(values)} at the ends" if symmetric else f"the {len(values)} largest"
    short = "" if converged else ", not converged"
    return Spectrum(kind, values, f"{which} of {min(rows, columns):,}, by Lanczos{short}")


def _dense(result: ShownResult, symmetric: bool) -> np.ndarray:
    matrix = result[...].astype(np.result_type(result.dtype, np.float64), copy=False)
    if symmetric:
        return np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    return np.linalg.svd(matrix, compute_uv=False)


def _lanczos(result: ShownResult, symmetric: bool, count: int) -> tuple[np.ndarray, bool]:
    linalg = load("scipy.sparse.linalg", "plot", "The spectrum of a large matrix")
    operator = result.as_linear_operator()
    start = (
        np.random.default_rng(0).standard_normal(min(result.matrix_shape)).astype(operator.dtype)
    )
    # Two accurate digits are more than a picture shows, and more passes over the file than these
    # would take too long.
    options = {"k": count, "v0": start, "tol": 1e-3, "maxiter": _RESTARTS}
    options["ncv"] = min(len(start), max(_VECTORS, 2 * count + 1))
    try:
        if symmetric:
            found = linalg.eigsh(operator, which="BE", return_eigenvectors=False, **options)
        else:
            found = linalg.svds(operator, return_singular_vectors=False, **options)
    except linalg.ArpackNoConvergence as error:
        values = np.asarray(error.eigenvalues, dtype=np.float64)
        return np.sort(values if symmetric else np.sqrt(np.abs(values)))[::-1], False
    return np.sort(np.asarray(found, dtype=np.float64))[::-1], True
