"""A time step of the Brusselator by Newton's method, with a sparse Jacobian from the result file.

For backward Euler and u' = f(u), the residual of a step is r(v) = v - u - dt f(v), and its Jacobian
I - dt f'(v). Each Newton step runs one job with `sparsity=auto`, and scipy's sparse solver uses its
result directly; the residual falls quadratically (C. T. Kelley, Solving Nonlinear Equations with
Newton's Method, SIAM 2003).

    python examples/sparse_newton.py
    python examples/sparse_newton.py 512
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

import jobs
from jobs.problems import load_builder
from outputs import SparseResult

STEP = 1e-3


def solve(points: int) -> tuple[list[float], float]:
    """Return the norms of the residuals of one step, and the error of the last Jacobian."""
    problem = load_builder("brusselator")(n=points, dtype=torch.float64, device=torch.device("cpu"))
    start = problem.point["concentrations"].numpy()
    state, norms = start.copy(), []
    for _ in range(8):
        with jobs.compute(
            "jacobian",
            {"name": "brusselator", "n": points},
            state,
            sparsity="auto",
            strategy="forward-mode",
            progress="quiet",
        ) as result:
            assert isinstance(result, SparseResult)
            rates, jacobian = result.value["rates"], result.as_scipy()
        residual = (state - start - STEP * rates).reshape(-1)
        norms.append(float(np.abs(residual).max()))
        if norms[-1] < 1e-9:
            return norms, _difference(problem.function, state, jacobian)
        matrix = scipy.sparse.eye_array(residual.size, format="csr") - STEP * jacobian
        # Diffusion couples two dimensions, so a factorization would fill in: iterate instead.
        diagonal = scipy.sparse.diags_array(1 / matrix.diagonal())
        change, failed = scipy.sparse.linalg.bicgstab(matrix, residual, rtol=1e-12, M=diagonal)
        if failed:
            raise RuntimeError("the linear solver does not converge")
        state = state - change.reshape(state.shape)
    raise RuntimeError(f"Newton's method does not converge: {norms}")


def _difference(
    function: Callable[..., Any],
    state: np.ndarray,
    jacobian: scipy.sparse.csr_array,
) -> float:
    """Return the relative error of the Jacobian times a random direction, by a difference."""
    direction, step = np.random.default_rng(0).standard_normal(state.shape), 1e-6
    ahead, behind = (
        function(torch.from_numpy(state + sign * step * direction)).numpy() for sign in (1, -1)
    )
    expected = ((ahead - behind) / (2 * step)).reshape(-1)
    given = jacobian @ direction.reshape(-1)
    return float(np.abs(given - expected).max() / np.abs(expected).max())


def main() -> None:
    """Solve one step and print how the residual falls."""
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    norms, difference = solve(points)
    print(f"{2 * points**2} unknowns, residuals: " + ", ".join(f"{norm:.1e}" for norm in norms))
    print(f"largest difference: {difference:.1e}")


if __name__ == "__main__":
    main()
