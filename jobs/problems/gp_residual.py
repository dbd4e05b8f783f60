"""The residuals of a sparse Gaussian process regression in one dimension.

    r = y - k(X, Z) (k(Z, Z) + jitter I)^-1 m,    k(a, b) = exp(-(a - b)^2 / (2 l^2))

X are the n data, Z the inducing points, m the values at the inducing points (constants), l the
lengthscale. The scalar form is half the sum of squares of r.

The inducing points stand about one unit apart, at every size, and the lengthscale is 0.75: so
k(Z, Z) has a condition number of about ten and the problem means the same in float32.

Sources:
    E. Snelson, Z. Ghahramani, Sparse Gaussian processes using pseudo-inputs, Advances in Neural
    Information Processing Systems 18 (2006), 1257-1264.
    C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for Machine Learning, MIT Press (2006),
    sections 2.2 (predictive mean), 4.2.1 (kernel) and 8.3 (sparse approximations).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from jobs.problems._options import check_size, seeded_generator
from jobs.problems.problem import Problem

__all__ = ["gp_residual"]

_LENGTHSCALE = 0.75
_JITTER = 1e-6


def gp_residual(
    *, n: int, inducing: int, seed: int, dtype: torch.dtype, device: torch.device
) -> Problem:
    """Build the residuals at n uniformly drawn data of a noisy sine.

    Args:
        n: The number of data, at least 1.
        inducing: The number of inducing points, at least 1.
        seed: Determines the data, the inducing points and the values there, at least 0.
        dtype: float32 or float64, for the Cholesky factor exists in no shorter dtype.
        device: Where the data and the point lie.

    Returns:
        Inputs ``inducing_points`` of shape (inducing,) and ``log_lengthscale`` of shape ();
        output ``residuals`` of shape (n,); the scalar form is half the sum of squares. One
        evaluation takes memory of the order inducing * (n + inducing).

    Raises:
        ValueError: ``n``, ``inducing`` or ``seed`` is not valid.
    """
    check_size("n", n)
    check_size("inducing", inducing)
    generator = seeded_generator(seed)
    draw = partial(torch.rand, generator=generator, dtype=torch.float64)
    noise = partial(torch.randn, generator=generator, dtype=torch.float64)
    # Centred at zero, where differences of coordinates lose least in float32.
    grid = torch.arange(inducing, dtype=torch.float64) - (inducing - 1) / 2
    inducing_points = grid + 0.2 * (draw(inducing) - 0.5)
    data = inducing * (draw(n) - 0.5)
    targets = torch.sin(data) + 0.1 * noise(n)
    inducing_values = torch.sin(inducing_points) + 0.1 * noise(inducing)
    constants = {
        "data": data.to(device, dtype),
        "targets": targets.to(device, dtype),
        "inducing_values": inducing_values.to(device, dtype),
    }
    return Problem(
        function=partial(_residuals, **constants),
        scalar=partial(_half_sum_of_squares, **constants),
        point={
            "inducing_points": inducing_points.to(device, dtype),
            "log_lengthscale": torch.tensor(math.log(_LENGTHSCALE), dtype=dtype, device=device),
        },
        outputs=("residuals",),
    )


def _kernel(a: Tensor, b: Tensor, log_lengthscale: Tensor) -> Tensor:
    scaled = (a[:, None] - b[None, :]) * torch.exp(-log_lengthscale)
    return torch.exp(-0.5 * scaled * scaled)


def _residuals(
    inducing_points: Tensor,
    log_lengthscale: Tensor,
    *,
    data: Tensor,
    targets: Tensor,
    inducing_values: Tensor,
) -> Tensor:
    identity = torch.eye(len(inducing_points), dtype=data.dtype, device=data.device)
    covariance = _kernel(inducing_points, inducing_points, log_lengthscale) + _JITTER * identity
    factor = torch.linalg.cholesky(covariance)
    weights = torch.cholesky_solve(inducing_values[:, None], factor).squeeze(-1)
    return targets - _kernel(data, inducing_points, log_lengthscale) @ weights


def _half_sum_of_squares(*point: Tensor, **constants: Tensor) -> Tensor:
    return 0.5 * _residuals(*point, **constants).square().sum()
