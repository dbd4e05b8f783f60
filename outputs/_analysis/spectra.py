"""Eigenvalues, singular values, condition numbers and the distribution of a spectrum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from outputs._analysis import krylov, lapack, quadrature
from outputs._analysis.answer import Answer, figures
from outputs._analysis.workspace import ROUNDING, Workspace, ends
from outputs._errors import ResultError

COUNT = 20
"""How many eigenvalues at each end, or singular values, are found by default."""


def checked_count(option: str, count: object) -> int | None:
    """Return how many values an option asks for; None for all.

    Raises:
        ResultError: If it is neither a positive number nor ``all``.
    """
    if count == "all":
        return None
    text = str(count)
    if isinstance(count, bool) or not text.isascii() or not text.isdigit() or not int(text):
        raise ResultError(f"--{option}={text}: a number from 1 on, or all, can be asked for.")
    return int(text)


def eigenvalues(work: Workspace, count: int | None) -> Answer:
    """Find eigenvalues of a symmetric (Hermitian) matrix.

    Args:
        work: The matrix.
        count: How many at each end of the spectrum; None for all, which needs the matrix in
            memory.
    """
    require_eigenvalues(work, count)
    size = work.matrix.shape[0]
    if count is None or work.fits:
        values = work.each(lambda a: lapack.eigenvalues(work.symmetric(a)))
        chosen = ends(values, count)
        error = size * work.matrix.precision * np.abs(values).max(-1)
        which = f"{chosen.shape[-1]:,} of {size:,}: {figures(chosen)}"
        method = "LAPACK, in memory"
        return work.answer("eigenvalues", chosen, (error, ROUNDING), method, which, count)
    found = _extreme(work, count)
    return work.answer(
        "eigenvalues",
        found.values,
        (found.residuals, "residual ‖A v - λ v‖: so near to each there is an eigenvalue"),
        f"block Lanczos, {found.passes} passes",
        f"{count} at each end of {size:,}: {figures(found.values)}; {_convergence(found)}",
        count,
    )


def require_eigenvalues(work: Workspace, count: int | None) -> None:
    """Check that `eigenvalues` can be found, before work starts."""
    work.require_square("eigenvalues")
    if count is None:
        work.require_whole("All eigenvalues")
    elif not work.fits:
        work.require_one("Eigenvalues")
        _columns(work, count, work.matrix.shape[0], 0, f"{count} eigenvalues at each end")
        work.require_symmetric()


def _extreme(work: Workspace, count: int) -> krylov.Extremes:
    size, dtype = work.matrix.shape[0], work.matrix.dtype
    columns = _columns(work, count, size, 0, f"{count} eigenvalues at each end")
    return krylov.extreme_eigenvalues(work.product, size, dtype, count, columns=columns)


def _columns(work: Workspace, count: int, size: int, beside: int, what: str) -> int:
    """Return how many vectors of a size fit in memory, with some bytes beside them."""
    line = size * work.matrix.dtype.itemsize
    work.budget.require(line * krylov.needed_columns(count) + beside, what)
    return min(size - 1, (work.budget.free - beside) // line)


def _convergence(found: krylov.Extremes) -> str:
    largest = f"largest residual {found.residuals.max():.1e}"
    if not found.missed:
        return largest
    return (
        f"{largest}, {found.missed} of {len(found.values)} have NOT CONVERGED: others may lie "
        "further out"
    )


def singular_values(work: Workspace, count: int | None) -> Answer:
    """Find singular values: all where the matrix, or its square of the shorter side, fits.

    Args:
        work: The matrix.
        count: How many of the largest; None for all.
    """
    columns = require_singular_values(work, count)
    if columns is None:
        values, method = _all_singular_values(work)
        chosen = values[..., :count]
        error = max(work.matrix.shape) * work.matrix.precision * values.max(-1)
        which = f"{chosen.shape[-1]:,} of {values.shape[-1]:,}: {figures(chosen)}"
        return work.answer("singular_values", chosen, (error, ROUNDING), method, which, count)
    assert count is not None
    short = min(work.matrix.shape)
    found = krylov.extreme_eigenvalues(
        work.squared, short, work.matrix.dtype, count, columns=columns, smallest=False
    )
    values = np.sqrt(np.maximum(found.values[::-1], 0))
    error = found.residuals[::-1] / np.maximum(values, np.finfo(np.float64).tiny)
    return work.answer(
        "singular_values",
        values,
        (error, "residual of A Aᴴ over the value: so near to each there is a singular value"),
        f"block Lanczos of A Aᴴ, {2 * found.passes} passes",
        f"the {count} largest of {short:,}: {figures(values)}; {_convergence(found)} (of A Aᴴ)",
        count,
    )


def require_singular_values(work: Workspace, count: int | None) -> int | None:
    """Check that `singular_values` can be found.

    Returns:
        How many vectors their iteration may keep; None if no iteration is needed.
    """
    work.require_all_entries("singular values")
    if work.fits or work.is_thin:
        return None
    if count is None:
        work.require_whole("All singular values")
        return None
    work.require_one("Singular values")
    beside = 2 * max(work.matrix.shape) * count * work.matrix.dtype.itemsize
    return _columns(work, count, min(work.matrix.shape), beside, f"{count} singular values")


def _all_singular_values(work: Workspace) -> tuple[np.ndarray, str]:
    if not work.fits and work.is_thin:
        return lapack.singular_values(lapack.triangular_factor(work.bands())), (
            "QR by bands and LAPACK, one pass"
        )
    return work.each(lapack.singular_values), "LAPACK, in memory"


def condition(work: Workspace) -> Answer:
    """Find the ratio of the largest and the smallest singular value."""
    require_condition(work)
    if work.fits or work.is_thin:
        values, method = _all_singular_values(work)
        with np.errstate(divide="ignore", invalid="ignore"):
            # That of a matrix of zeros is infinite as well.
            ratio = np.nan_to_num(values[..., 0] / values[..., -1], nan=np.inf, posinf=np.inf)
        rounding = ratio * max(work.matrix.shape) * work.matrix.precision
        error = ratio * rounding
        summary = figures(np.atleast_1d(ratio))
        if (rounding >= 1).any():
            summary += ", singular to working precision"
        return work.answer("condition", ratio, (error, "bound for rounding"), method, summary)
    found = _extreme(work, 1)
    (low, high), bounds = found.values, found.residuals
    if found.missed or low - bounds[0] <= 0 <= high + bounds[1]:
        raise ResultError(
            f"The condition number of {work.matrix.path} was not found: its eigenvalues range "
            f"from {low:.3g} to {high:.3g} ({_convergence(found)}). {work.enough}"
        )
    sizes = np.abs([low, high])
    ratio = float(sizes.max() / sizes.min())
    error = ratio * float((bounds / sizes).sum())
    return work.answer(
        "condition",
        np.array(ratio),
        (np.array(error), "from the residuals of both eigenvalues"),
        f"block Lanczos, {found.passes} passes",
        f"{ratio:.6g} ± {error:.1e}",
    )


def require_condition(work: Workspace) -> None:
    """Check that `condition` can be found, before work starts."""
    work.require_all_entries("condition number")
    if not (work.fits or work.is_thin):
        work.require_square("condition number, where it does not fit in memory")
        require_eigenvalues(work, 1)


def spectral_density(work: Workspace, probes: int = quadrature.PROBES) -> Answer:
    """Find the distribution of the eigenvalues: what share of them is below each number.

    Args:
        work: The matrix.
        probes: How many random vectors estimate it where the matrix does not fit in memory.
    """
    require_spectral_density(work, probes)
    if work.fits:
        nodes = np.sort(work.each(lambda a: lapack.eigenvalues(work.symmetric(a))), axis=None)
        found = quadrature.Density(nodes[None], np.full((1, len(nodes)), 1 / len(nodes)))
        method, kind = "LAPACK, in memory", "none: all eigenvalues"
    else:
        found, steps = quadrature.density(work.product, work.matrix.shape[0], probes)
        method = f"stochastic Lanczos quadrature, {steps} steps"
        kind = f"standard error over {probes} random vectors"
    low, high = found.nodes.min(), found.nodes.max()
    at = np.unique(np.append(np.linspace(low, high, 401), 0.0 if low < 0 < high else low))
    share, error = found.cumulative(at)
    quantiles = at[np.searchsorted(share, (0.05, 0.5, 0.95)).clip(max=len(at) - 1)]
    rounding = work.matrix.shape[0] * work.matrix.precision * max(abs(low), abs(high))
    below, deviation = (float(part[0]) for part in found.cumulative(np.array([-rounding])))
    answer = work.answer(
        "spectral_density",
        share,
        (error, kind),
        method,
        f"from {low:.4g} to {high:.4g}, negative {below:.4g} ± {deviation:.1g}, 5, 50 and 95 % "
        f"below {', '.join(f'{q:.4g}' for q in quantiles)}",
        probes,
    )
    return replace(answer, arrays={"at": at, "nodes": found.nodes, "weights": found.weights})


def require_spectral_density(work: Workspace, probes: int) -> None:
    """Check that `spectral_density` can be found, before work starts."""
    work.require_square("eigenvalues")
    if not work.fits:
        work.require_one("A spectral density")
        work.require_probes(probes, "A spectral density")
        work.require_symmetric()
