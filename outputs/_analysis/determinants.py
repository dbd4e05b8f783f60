"""The trace of a square matrix, and the logarithm of its determinant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from outputs._analysis import lapack, quadrature
from outputs._analysis.answer import Answer, figures
from outputs._analysis.matrices import diagonal
from outputs._analysis.workspace import Workspace
from outputs._errors import ResultError
from outputs._format.description import DIAGONAL, FULL


def trace(work: Workspace) -> Answer:
    """Add up the diagonal of a square matrix."""
    entries = diagonal_of(work, "trace")
    values = entries.sum(-1)
    error = work.matrix.shape[0] * work.matrix.precision * np.abs(entries).sum(-1)
    return work.answer(
        "trace", values, (error, "bound for rounding"), "sum", figures(np.atleast_1d(values))
    )


def require_diagonal(work: Workspace, what: str) -> None:
    """Check that the file holds the diagonal of a square matrix."""
    if work.structure == FULL:
        work.require_square(what)


def diagonal_of(work: Workspace, what: str) -> np.ndarray:
    """Read the diagonal of a square matrix, of shape (rows,) or (points, rows).

    Args:
        work: The matrix.
        what: What a matrix that is not square does not have.
    """
    require_diagonal(work, what)
    if work.structure == DIAGONAL:
        return work.matrix.read()[:, 0]
    if work.matrix.count is None:
        return diagonal(work.matrix)
    return work.each(lambda a: np.diagonal(a).copy())


def log_determinant(work: Workspace, probes: int = quadrature.PROBES) -> Answer:
    """Find log |det A| of a square matrix, with its sign where the matrix fits in memory.

    Args:
        work: The matrix.
        probes: How many random vectors estimate it where it does not.
    """
    require_log_determinant(work, probes)
    if not work.fits:
        return _estimated_log_determinant(work, probes)
    found = [_exact(work, point) for point in range(work.matrix.count or 1)]
    signs, values, errors = (np.array([one[part] for one in found]) for part in range(3))
    answer = work.answer(
        "log_determinant",
        values if work.matrix.count else values[0],
        (errors.max(), "bound for rounding: size x ε x condition number"),
        "LU of LAPACK, in memory",
        f"{figures(values)}, sign of the determinant {figures(_real(signs))}",
        probes,
    )
    return replace(answer, arrays={"sign": _real(signs)})


def require_log_determinant(work: Workspace, probes: int) -> None:
    """Check that `log_determinant` can be found, before work starts."""
    work.require_square("determinant")
    if not work.fits:
        work.require_one("A log-determinant")
        work.require_probes(probes, "A log-determinant")


def _exact(work: Workspace, point: int) -> tuple[complex, float, float]:
    precision = work.matrix.precision
    factors = lapack.factored(work.matrix.read(point), work.name(point), precision)
    sign, value = factors.log_determinant()
    return sign, value, work.matrix.shape[0] * precision * (abs(value) + 1 / factors.reciprocal)


def _real(values: np.ndarray) -> np.ndarray:
    return values if np.imag(values).any() else np.real(values)


def _estimated_log_determinant(work: Workspace, probes: int) -> Answer:
    size = work.matrix.shape[0]
    sign, factor, is_found = "+1", 1.0, False
    if work.is_symmetric:
        try:
            found = quadrature.log_determinant(work.product, size, probes)
            is_found = True
        except quadrature.NotDefiniteError as error:
            work.report(f"not positive definite: {error}")
    if not is_found:
        sign, factor = "not known: A is not shown to be positive definite", 0.5
        found = _of_square(work, size, probes)
    errors = factor * found.statistical, factor * found.quadrature
    answer = work.answer(
        "log_determinant",
        np.array(factor * found.value),
        (
            np.array(sum(errors)),
            f"standard error {errors[0]:.2g} over {probes} random vectors, plus {errors[1]:.2g} "
            "of the quadrature",
        ),
        f"stochastic Lanczos quadrature{'' if is_found else ' of Aᴴ A'}, {found.passes} steps",
        f"{factor * found.value:.6g} ± {sum(errors):.2g} ({errors[0]:.2g} statistical, "
        f"{errors[1]:.2g} of the quadrature), sign {sign}",
        probes,
    )
    return replace(answer, facts={**answer.facts, "statistical_error": errors[0]})


def _of_square(work: Workspace, size: int, probes: int) -> quadrature.LogDeterminant:
    try:
        return quadrature.log_determinant(work.squared, size, probes)
    except quadrature.NotDefiniteError as error:
        raise ResultError(
            f"The log-determinant of {work.matrix.path} was not found: of Aᴴ A, {error}. "
            f"{work.enough}"
        ) from error
