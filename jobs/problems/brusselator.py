"""The right-hand side of the Brusselator with diffusion in two dimensions.

    du/dt = A + u^2 v - (B + 1) u + alpha (u_xx + u_yy)
    dv/dt = B u - u^2 v + alpha (v_xx + v_yy)

on the unit square with periodic boundaries, A = 1, B = 3.4, alpha = 0.1, the Laplacian by central
differences on an n x n grid. The initial state is u = 22 (y (1 - y))^(3/2) and
v = 27 (x (1 - x))^(3/2): the benchmark's, in the form whose slope is continuous across the
periodic boundary. The Jacobian is sparse: at most six entries a row.

Sources:
    I. Prigogine, R. Lefever, Symmetry breaking instabilities in dissipative systems II, The
    Journal of Chemical Physics 48 (1968), 1695-1700.
    E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, 2nd edition, Springer
    (1996), section IV.10, problem BRUSS-2D (at a time before its forcing sets in).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from jobs.problems._options import check_size
from jobs.problems.problem import Problem

__all__ = ["brusselator"]

_A = 1.0
_B = 3.4
_ALPHA = 0.1


def brusselator(*, n: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Build the right-hand side at the benchmark's initial state.

    Args:
        n: The number of grid points along each side, at least 3: fewer, and the five points of
            the stencil coincide.
        dtype: A floating-point dtype.
        device: Where the point lies.

    Returns:
        Input ``concentrations`` of shape (2, n, n), u and v over x and y; output ``rates`` of the
        same shape, du/dt and dv/dt; no scalar form.

    Raises:
        ValueError: ``n`` is not valid.
    """
    check_size("n", n, minimum=3)
    coordinate = torch.arange(n, dtype=torch.float64) / n
    profile = (coordinate * (1 - coordinate)) ** 1.5
    u = 22 * profile[None, :].expand(n, n)
    v = 27 * profile[:, None].expand(n, n)
    return Problem(
        function=partial(_rates, diffusion=_ALPHA * n**2),
        scalar=None,
        point={"concentrations": torch.stack((u, v)).to(device, dtype)},
        outputs=("rates",),
    )


def _rates(concentrations: Tensor, *, diffusion: float) -> Tensor:
    u, v = concentrations.unbind()
    autocatalysis = u * u * v
    reaction = torch.stack((_A + autocatalysis - (_B + 1) * u, _B * u - autocatalysis))
    return reaction + diffusion * _stencil(concentrations)


def _stencil(field: Tensor) -> Tensor:
    """Return the periodic five-point sum: the Laplacian times the squared grid spacing."""
    neighbours = sum(torch.roll(field, shift, dim) for dim in (-2, -1) for shift in (-1, 1))
    return neighbours - 4 * field
