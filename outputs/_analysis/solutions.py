"""Solutions of linear equations with a stored matrix."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from outputs._analysis import krylov, lapack
from outputs._analysis.answer import Answer
from outputs._analysis.workspace import Workspace
from outputs._errors import ResultError


def solve(work: Workspace, b: np.ndarray) -> Answer:
    """Solve A x = b for a square matrix.

    Args:
        work: The matrix.
        b: Shape (rows,), (rows, vectors), or with many points (points, rows).

    Raises:
        ResultError: If ``b`` does not fit, or the matrix is singular to working precision.
    """
    asked = digest(b)
    b = right_side(work, b)
    x, method, note = (_solved_in_memory if work.fits else _solved_by_products)(work, b)
    residual = _residual(work, b, x)
    if not residual <= work.matrix.precision**0.5:
        raise ResultError(
            f"A x = b was not solved: ‖b - A x‖ / ‖b‖ is {residual:.1e} ({method}). "
            f"{work.matrix.path} is singular or too ill-conditioned. {work.enough}"
        )
    answer = work.answer(
        "solution",
        x,
        (np.array(residual), "‖b - A x‖ / ‖b‖, the largest"),
        method,
        f"‖x‖ = {np.linalg.norm(x):.6g}, ‖b - A x‖ / ‖b‖ = {residual:.1e}{note}",
        asked,
    )
    return replace(answer, arrays={"b": b})


def digest(b: np.ndarray) -> str:
    """Return a hash of the right side of an equation, its shape and dtype."""
    head = f"{b.dtype.str} {b.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(b).tobytes()).hexdigest()


def right_side(work: Workspace, b: np.ndarray) -> np.ndarray:
    """Return b in the dtype of the matrix, after checks that it can be solved for."""
    work.require_square("solution")
    rows, count = work.matrix.shape[0], work.matrix.count
    allowed = "iuf" if work.matrix.dtype.kind == "f" else "iufc"
    fits = b.shape == (count, rows) if count else b.ndim in (1, 2) and b.shape[0] == rows
    if not fits or not b.size:
        wanted = f"({count}, {rows})" if count else f"({rows},) or ({rows}, vectors)"
        raise ResultError(f"b has the shape {b.shape}; {work.matrix.path} needs {wanted}.")
    if b.dtype.kind not in allowed:
        raise ResultError(f"b holds {b.dtype}; numbers that fit {work.matrix.dtype} are needed.")
    if not np.isfinite(b).all():
        raise ResultError(f"b has {int((~np.isfinite(b)).sum())} entries that are not finite.")
    if not work.fits:
        work.require_one("A solution")
        work.budget.require(12 * len(b) * 8 + 3 * b.nbytes, "A solution")
        if work.matrix.dtype.kind == "c":
            work.require_whole("A solution with a complex matrix")
    return np.asarray(b, work.matrix.dtype)


def _solved_in_memory(work: Workspace, b: np.ndarray) -> tuple[np.ndarray, str, str]:
    smallest, found = 1.0, []
    for point, one in enumerate(b if work.matrix.count else b[None]):
        factors = lapack.factored(work.matrix.read(point), work.name(point), work.matrix.precision)
        found.append(factors.solve(one))
        smallest = min(smallest, factors.reciprocal)
    note = f", condition number about {1 / smallest:.1e}"
    return np.reshape(found, b.shape), "LU of LAPACK, in memory", note


def _solved_by_products(work: Workspace, b: np.ndarray) -> tuple[np.ndarray, str, str]:
    adjoint = None if work.is_symmetric else work.adjoint
    columns = b.reshape(len(b), -1).T
    found = [krylov.solved(work.product, adjoint, one) for one in columns]
    x = np.stack([one[0] for one in found], axis=1).reshape(b.shape)
    method, passes = found[0][1], sum(one[2] for one in found)
    return x, f"{method}, {passes} passes", ""


def _residual(work: Workspace, b: np.ndarray, x: np.ndarray) -> float:
    """Return the largest ‖b - A x‖ / ‖b‖ of all vectors; 0 for zeros."""
    if work.matrix.count is None:
        right, found = b.reshape(len(b), -1), x.reshape(len(x), -1)
        left = right - work.product(found)
    else:
        right = b.T
        left = np.stack([work.matrix.read(n) @ x[n] for n in range(len(b))], axis=1) - right
    norms = np.linalg.norm(right, axis=0)
    return float((np.linalg.norm(left, axis=0) / np.where(norms, norms, 1)).max())
