"""The positions of points on a kinematic chain of 14 hinges.

    x_i(angles) = T_1(angle_1) ... T_k(angle_k) p_i,    k = k(i) hinges before point i
    T_j(angle) x = c_j + R_j(angle) (x - c_j)
    R_j(angle) = I + sin(angle) K_j + (1 - cos(angle)) K_j^2,    K_j x = w_j cross x

Each hinge turns everything behind it about its axis w_j through its centre c_j: the product of
exponentials in the rest pose. Hinge j stands at (j - 1, 0, 0) in the rest pose; its axis is the
direction of y (j odd) or z (j even). The points p_i wind along the chain on a helix, every link of
length 1 carrying the same number of them but for rounding. A tall Jacobian: few inputs, many
outputs, and blocks of zeros, since no point depends on the hinges behind it.

Sources:
    O. Rodrigues, Des lois géométriques qui régissent les déplacements d'un système solide dans
    l'espace, Journal de Mathématiques Pures et Appliquées 5 (1840), 380-440.
    R. W. Brockett, Robotic manipulators and the product of exponentials formula, in Mathematical
    Theory of Networks and Systems, Springer (1984), 120-129.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from jobs.problems._options import check_size
from jobs.problems.problem import Problem

__all__ = ["rotation_chain"]

_HINGES = 14
_RADIUS = 0.25
"""The helix's radius: off the centre line, so that turns move the points in all directions."""


def rotation_chain(*, n: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Build the chain with its hinges bent by angles between -0.3 and 0.3.

    Args:
        n: The number of points, at least 1; 3005 give 9,015 outputs.
        dtype: A floating-point dtype.
        device: Where the points of the rest pose and the point lie.

    Returns:
        Input ``angles`` of shape (14,), in radians; output ``positions`` of shape (n, 3); no
        scalar form.

    Raises:
        ValueError: ``n`` is not valid.
    """
    check_size("n", n)
    hinges = torch.arange(_HINGES, dtype=torch.float64)
    centres = torch.stack((hinges, 0 * hinges, 0 * hinges), dim=1)
    axes = torch.eye(3, dtype=torch.float64)[[1, 2]].repeat(_HINGES // 2, 1)
    distance = (torch.arange(n, dtype=torch.float64) + 0.5) * (_HINGES / n)
    winding = 2 * torch.pi * distance
    rest = torch.stack(
        (distance, _RADIUS * torch.cos(winding), _RADIUS * torch.sin(winding)), dim=1
    )
    return Problem(
        function=partial(
            _positions,
            generators=_cross_product_matrices(axes).to(device, dtype),
            centres=centres.to(device, dtype),
            rest=rest.to(device, dtype),
            link=distance.long().to(device),
        ),
        scalar=None,
        point={"angles": (0.3 * torch.sin(hinges + 1)).to(device, dtype)},
        outputs=("positions",),
    )


def _cross_product_matrices(axes: Tensor) -> Tensor:
    """Return K of shape (hinges, 3, 3) with K[j] @ x equal to axes[j] cross x."""
    identity = torch.eye(3, dtype=axes.dtype).expand(len(axes), 3, 3)
    return torch.linalg.cross(axes[:, None, :].expand_as(identity), identity).transpose(1, 2)


def _positions(
    angles: Tensor, *, generators: Tensor, centres: Tensor, rest: Tensor, link: Tensor
) -> Tensor:
    """Return the points (n, 3); ``link`` (n,) is the last hinge, from 0, before each point."""
    rotations, translations = _link_motions(angles, generators, centres)
    turned = (rotations[link] @ rest[:, :, None]).squeeze(-1)
    return turned + translations[link]


def _link_motions(angles: Tensor, generators: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return each link's rotation (hinges, 3, 3) and translation (hinges, 3) from rest."""
    identity = torch.eye(3, dtype=generators.dtype, device=generators.device)
    sine, cosine = torch.sin(angles)[:, None, None], torch.cos(angles)[:, None, None]
    turns = identity + sine * generators + (1 - cosine) * (generators @ generators)
    rotation, translation = identity, torch.zeros_like(centres[0])
    rotations, translations = [], []
    for turn, centre in zip(turns.unbind(), centres.unbind(), strict=True):
        translation = translation + rotation @ (centre - turn @ centre)
        rotation = rotation @ turn
        rotations.append(rotation)
        translations.append(translation)
    return torch.stack(rotations), torch.stack(translations)
