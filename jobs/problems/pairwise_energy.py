"""The energy of n particles under the Lennard-Jones pair potential, in reduced units.

    E = sum_{i<j} 4 (r_ij^-12 - r_ij^-6),    r_ij = |x_i - x_j|

The particles stand on a simple cubic lattice, displaced a little at random; there is no periodic
box. The Hessian is the matrix of force constants; its row sums over particles vanish, because the
energy does not change when all particles move together.

Sources:
    J. E. Jones, On the determination of molecular fields II: from the equation of state of a gas,
    Proceedings of the Royal Society A 106 (1924), 463-477.
    M. P. Allen, D. J. Tildesley, Computer Simulation of Liquids, Oxford (1987): reduced units.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from jobs.problems._options import check_size, seeded_generator
from jobs.problems.problem import Problem

__all__ = ["pairwise_energy"]

_SPACING = 2 ** (1 / 6)
"""The lattice spacing: the minimum of the pair potential."""

_DISPLACEMENT = 0.05
"""The greatest displacement of a coordinate: keeps neighbours clear of the steep repulsion."""


def pairwise_energy(*, n: int, seed: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Build the energy of n particles near a cubic lattice.

    Args:
        n: The number of particles, at least 2.
        seed: Determines the displacements from the lattice, at least 0.
        dtype: A floating-point dtype.
        device: Where the point lies.

    Returns:
        Input ``positions`` of shape (n, 3); output ``energy`` of shape (), which is the scalar
        form too. One evaluation takes memory of the order n^2.

    Raises:
        ValueError: ``n`` or ``seed`` is not valid.
    """
    check_size("n", n, minimum=2)
    generator = seeded_generator(seed)
    uniform = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    positions = _SPACING * _cubic_lattice(n) + _DISPLACEMENT * (2 * uniform - 1)
    first, second = torch.triu_indices(n, n, offset=1, device=device)
    energy = partial(_energy, first=first, second=second)
    return Problem(
        function=energy,
        scalar=energy,
        point={"positions": positions.to(device, dtype)},
        outputs=("energy",),
    )


def _cubic_lattice(n: int) -> Tensor:
    """Return the first n sites of the smallest cube that holds them, as (n, 3) float64."""
    side = 1
    while side**3 < n:
        side += 1
    site = torch.arange(n, dtype=torch.int64)
    return torch.stack((site // side**2, site // side % side, site % side), dim=1).double()


def _energy(positions: Tensor, *, first: Tensor, second: Tensor) -> Tensor:
    # Only pairs i < j are gathered: on the diagonal r = 0 would give NaN derivatives.
    difference = positions[first] - positions[second]
    inverse_sixth_power = (difference * difference).sum(-1) ** -3
    return 4 * (inverse_sixth_power * (inverse_sixth_power - 1)).sum()
