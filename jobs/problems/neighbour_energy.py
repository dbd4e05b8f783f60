"""The Lennard-Jones energy of a crystal, between fixed neighbours alone.

    E = sum over pairs of nearest neighbours of 4 (r^-12 - r^-6)

in reduced units, on a face-centred cubic lattice with periodic boundaries, where each particle has
twelve nearest neighbours. The list of pairs is fixed and the positions are gathered by it, as
molecular dynamics does between two updates of its lists: the Hessian is sparse, 39 entries a row.

Sources:
    J. E. Jones, On the determination of molecular fields, Proceedings of the Royal Society A 106
    (1924), 463-477.
    L. Verlet, Computer "experiments" on classical fluids, Physical Review 159 (1967), 98-103: the
    lists of neighbours.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from jobs.problems._options import check_size, seeded_generator
from jobs.problems.problem import Problem

__all__ = ["neighbour_energy"]

_BASIS = ((0.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
# Of the twelve, one of each pair of opposite ones.
_HALF = ((0, 1, 1), (0, 1, -1), (1, 0, 1), (1, 0, -1), (1, 1, 0), (1, -1, 0))
_DISTANCE = 2 ** (1 / 6)
_DISPLACEMENT = 0.05


def neighbour_energy(*, n: int, seed: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Build the energy of 4 n^3 particles near their places on the lattice.

    Args:
        n: The number of unit cells along each side, at least 2.
        seed: Determines the displacements, up to 0.05 a coordinate.
        dtype: A floating-point dtype.
        device: Where the pairs and the point lie.

    Returns:
        Input ``positions`` of shape (4 n^3, 3); output ``energy`` of shape (), the scalar form too.

    Raises:
        ValueError: An option is not valid.
    """
    check_size("n", n, minimum=2)
    generator = seeded_generator(seed)
    edge = _DISTANCE * 2**0.5
    cells = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64)] * 3)
    basis = torch.tensor(_BASIS, dtype=torch.float64)
    # In halves of an edge all coordinates are integers, by which a place is looked up.
    places = (2 * (cells[:, None] + basis)).reshape(-1, 3).long()
    number = torch.full((2 * n,) * 3, -1)
    number[places.unbind(1)] = torch.arange(len(places))
    wanted = places[:, None] + torch.tensor(_HALF)
    second = number[(wanted % (2 * n)).unbind(2)]
    first = torch.arange(len(places))[:, None].expand_as(second)
    # What brings the second one next to the first across the periodic boundary.
    shift = (wanted - wanted % (2 * n)).double() * (edge / 2)
    jitter = torch.rand(places.shape, generator=generator, dtype=torch.float64) - 0.5
    positions = places.double() * (edge / 2) + 2 * _DISPLACEMENT * jitter
    energy = partial(
        _energy,
        first=first.reshape(-1).to(device),
        second=second.reshape(-1).to(device),
        shift=shift.reshape(-1, 3).to(device, dtype),
    )
    return Problem(
        function=energy,
        scalar=energy,
        point={"positions": positions.to(device, dtype)},
        outputs=("energy",),
    )


def _energy(positions: Tensor, *, first: Tensor, second: Tensor, shift: Tensor) -> Tensor:
    between = positions[second] + shift - positions[first]
    inverse = 1 / (between * between).sum(1) ** 3
    return (4 * (inverse * inverse - inverse)).sum()
