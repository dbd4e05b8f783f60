"""Newton's method for a nonlinear differential equation, with the Jacobian of its residual.

The Bratu problem is -u'' = λ exp(u) on (0, 1) with u = 0 at both ends, here by central differences.
Each step runs one job at the current u and solves with its Jacobian; the residual falls
quadratically. The example compares the solution with the exact one (G. Bratu, Bulletin de la
Société Mathématique de France 42 (1914), 113-142), from which it differs by the order of the
spacing squared.

    python examples/newton.py
"""

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

import jobs
from outputs import Result

LAMBDA = 2.0
POINTS = 99


def residual(u: Tensor) -> Tensor:
    """Return the residual at the inner points, of shape (n,), for u of the same shape."""
    spacing = 1 / (len(u) + 1)
    padded = torch.nn.functional.pad(u, (1, 1))
    second = (padded[2:] - 2 * padded[1:-1] + padded[:-2]) / spacing**2
    return -second - LAMBDA * torch.exp(u)


def solve(points: int) -> tuple[np.ndarray, list[float]]:
    """Return the discrete solution, and the norms of the residuals of all steps."""
    u, norms = np.zeros(points), []
    for _ in range(10):
        with jobs.compute(
            "jacobian", residual, u, strategy="forward-mode", progress="quiet"
        ) as result:
            assert isinstance(result, Result)
            value, jacobian = result.value["output"], result[...]
        norms.append(float(np.abs(value).max()))
        if norms[-1] < 1e-8:
            return u, norms
        u = u - np.linalg.solve(jacobian, value)
    raise RuntimeError(f"Newton's method does not converge: {norms}")


def exact(points: int) -> np.ndarray:
    """Return the lower solution of the differential equation at the inner points."""
    theta = float(np.asarray(brentq(lambda t: t - np.sqrt(2 * LAMBDA) * np.cosh(t / 4), 0, 4)))
    x = np.linspace(0, 1, points + 2)[1:-1]
    return -2 * np.log(np.cosh((x - 0.5) * theta / 2) / np.cosh(theta / 4))


def main() -> None:
    """Solve and compare."""
    u, norms = solve(POINTS)
    print(f"residuals of {len(norms)} steps:", *(f"{norm:.1e}" for norm in norms))
    error = float(np.abs(u - exact(POINTS)).max())
    print(f"in squares of the spacing: {error * (POINTS + 1) ** 2:.3f}")
    print(f"largest difference: {error:.1e}")


if __name__ == "__main__":
    main()
