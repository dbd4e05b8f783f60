"""The forces in a sheet of square finite elements that stiffen as they are strained.

    E = sum over elements of q/2 + q^2/4,  q = u_e^T K u_e

where u_e are the eight displacements of an element's four nodes, gathered from those of all, and K
is the stiffness matrix of the bilinear element in plane stress (unit modulus of elasticity,
Poisson's ratio 0.3). The forces are the gradient, (1 + q) K u_e, scattered and added up at the
nodes: the derivative is a sum of dense 8 x 8 blocks, at most 18 entries a row.

Source:
    O. C. Zienkiewicz, R. L. Taylor, The Finite Element Method, 4th edition, McGraw-Hill (1989),
    chapters 3 and 7; the stiffness matrix in closed form: O. Sigmund, A 99 line topology
    optimization code written in Matlab, Structural and Multidisciplinary Optimization 21 (2001),
    120-127.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from jobs.problems._options import check_size, seeded_generator
from jobs.problems.problem import Problem

__all__ = ["finite_elements"]

_POISSON = 0.3
# Which of eight numbers stands where.
_PLACES = (
    (0, 1, 2, 3, 4, 5, 6, 7),
    (1, 0, 7, 6, 5, 4, 3, 2),
    (2, 7, 0, 5, 6, 3, 4, 1),
    (3, 6, 5, 0, 7, 2, 1, 4),
    (4, 5, 6, 7, 0, 1, 2, 3),
    (5, 4, 3, 2, 1, 0, 7, 6),
    (6, 3, 4, 1, 2, 7, 0, 5),
    (7, 2, 1, 4, 3, 6, 5, 0),
)


def finite_elements(*, n: int, seed: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Build the forces at random displacements.

    Args:
        n: The number of elements along each side, at least 1.
        seed: Determines the displacements.
        dtype: A floating-point dtype.
        device: Where the elements and the point lie.

    Returns:
        Input ``displacements`` of shape ((n + 1)^2, 2); output ``forces`` of the same shape; the
        scalar form is the ``energy`` of shape ().

    Raises:
        ValueError: An option is not valid.
    """
    check_size("n", n)
    generator = seeded_generator(seed)
    corner = torch.cartesian_prod(torch.arange(n), torch.arange(n)) @ torch.tensor([n + 1, 1])
    nodes = corner[:, None] + torch.tensor([0, n + 1, n + 2, 1])
    # Both displacements of each node, in the order of the stiffness matrix.
    freedoms = (2 * nodes[:, :, None] + torch.arange(2)).reshape(-1, 8)
    points = torch.randn(((n + 1) ** 2, 2), generator=generator, dtype=torch.float64)
    constants = {
        "freedoms": freedoms.to(device),
        "stiffness": _stiffness().to(device, dtype),
    }
    return Problem(
        function=partial(_forces, **constants),
        scalar=partial(_energy, **constants),
        point={"displacements": (0.1 * points).to(device, dtype)},
        outputs=("forces",),
    )


def _stiffness() -> Tensor:
    v = _POISSON
    numbers = torch.tensor(
        [
            *(1 / 2 - v / 6, 1 / 8 + v / 8, -1 / 4 - v / 12, -1 / 8 + 3 * v / 8),
            *(-1 / 4 + v / 12, -1 / 8 - v / 8, v / 6, 1 / 8 - 3 * v / 8),
        ],
        dtype=torch.float64,
    )
    return numbers[torch.tensor(_PLACES)] / (1 - v**2)


def _energy(displacements: Tensor, *, freedoms: Tensor, stiffness: Tensor) -> Tensor:
    own = displacements.reshape(-1)[freedoms]
    strain = ((own @ stiffness) * own).sum(1)
    return (strain / 2 + strain**2 / 4).sum()


def _forces(displacements: Tensor, *, freedoms: Tensor, stiffness: Tensor) -> Tensor:
    own = displacements.reshape(-1)[freedoms]
    pulled = own @ stiffness
    strain = (pulled * own).sum(1, keepdim=True)
    forces = (1 + strain) * pulled
    total = torch.zeros_like(displacements).reshape(-1)
    return total.index_add(0, freedoms.reshape(-1), forces.reshape(-1)).reshape_as(displacements)
