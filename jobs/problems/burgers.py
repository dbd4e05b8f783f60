"""The residual of an implicit step of Burgers' equation in one dimension.

    r = u - u_old + dt (u u_x - nu u_xx),  0 < x < 1,  u(0) = u(1) = 0

with central differences in space and Euler's backward step in time; nu = 0.01, and dt is the
spacing of the grid. The Jacobian is tridiagonal.

Sources:
    J. M. Burgers, A mathematical model illustrating the theory of turbulence, Advances in Applied
    Mechanics 1 (1948), 171-199.
    R. J. LeVeque, Finite Difference Methods for Ordinary and Partial Differential Equations, SIAM
    (2007), chapters 9 and 10.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from jobs.problems._options import check_size
from jobs.problems.problem import Problem

__all__ = ["burgers"]

_VISCOSITY = 0.01


def burgers(*, n: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Build the residual of the first step from a sine, at its start.

    Args:
        n: The number of inner grid points, at least 2.
        dtype: A floating-point dtype.
        device: Where the old state and the point lie.

    Returns:
        Input ``velocity`` of shape (n,); output ``residual`` of shape (n,); no scalar form.

    Raises:
        ValueError: ``n`` is not valid.
    """
    check_size("n", n, minimum=2)
    spacing = 1 / (n + 1)
    old = torch.sin(math.pi * spacing * torch.arange(1, n + 1, dtype=torch.float64))
    old = old.to(device, dtype)
    return Problem(
        function=partial(_residual, old=old, spacing=spacing),
        scalar=None,
        point={"velocity": old.clone()},
        outputs=("residual",),
    )


def _residual(velocity: Tensor, *, old: Tensor, spacing: float) -> Tensor:
    padded = pad(velocity, (1, 1))
    left, right = padded[:-2], padded[2:]
    slope = (right - left) / (2 * spacing)
    curvature = (left - 2 * velocity + right) / spacing**2
    return velocity - old + spacing * (velocity * slope - _VISCOSITY * curvature)
