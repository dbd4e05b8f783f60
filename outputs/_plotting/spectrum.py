"""Eigenvalues of a Hessian, singular values of any other matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from outputs._optional import load

if TYPE_CHECKING:
    from outputs._reading.result import Result

_DENSE_ENTRIES = 1500**2
_VECTORS, _RESTARTS = 60, 6  # at most 60 * 6 multiplications, each one pass or two


@dataclass(frozen=True)
class Spectrum:
    """Values of a matrix, or why there are none.

    Attributes:
        kind: "eigenvalues" or "singular values".
        values: Descending, float64; all of them, or those at the ends.
        method: How they were computed and which they are, for people.
    """

    kind: str
    values: np.ndarray
    method: str


def spectrum(result: Result, count: int) -> Spectrum:
    """All values of a small matrix, those at the ends of a large one.

    A real Hessian is taken as symmetric: its symmetric part where all values are computed. A
    large matrix is never loaded: Lanczos' method multiplies by it out of core, from a fixed
    start, reading the whole file once or twice a step.

    Args:
        result: A complete result of finite entries.
        count: How many values of a large matrix.

    Raises:
        MissingDependencyError: If SciPy is needed and not installed.
        ResultError: If the file is damaged.
    """
    rows, columns = result.matrix_shape
    symmetric = result.operation == "hessian" and result.dtype.kind != "c" and rows == columns
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


def _dense(result: Result, symmetric: bool) -> np.ndarray:
    matrix = result[...].astype(np.result_type(result.dtype, np.float64), copy=False)
    if symmetric:
        return np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    return np.linalg.svd(matrix, compute_uv=False)


def _lanczos(result: Result, symmetric: bool, count: int) -> tuple[np.ndarray, bool]:
    linalg = load("scipy.sparse.linalg", "plot", "The spectrum of a large matrix")
    operator = result.as_linear_operator()
    start = (
        np.random.default_rng(0).standard_normal(min(result.matrix_shape)).astype(operator.dtype)
    )
    # Two digits are more than a picture shows, and nobody waits for more passes than these.
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
