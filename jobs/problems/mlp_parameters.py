"""A multilayer perceptron, differentiated with respect to its parameters.

    y_s = W3 tanh(W2 tanh(W1 x_s + b1) + b2) + b3,    n -> 2n -> 2n -> max(1, n // 4)
    loss = mean over samples s and outputs k of (y_sk - t_sk)^2

The Jacobian of the outputs y gives the tangent kernel and the Gauss-Newton matrix, the Hessian of
the loss its curvature. With n = 256 and 16 samples there are 427,072 parameters and 1,024 rows.

Sources:
    D. E. Rumelhart, G. E. Hinton, R. J. Williams, Learning representations by back-propagating
    errors, Nature 323 (1986), 533-536.
    C. M. Bishop, Exact calculation of the Hessian matrix for the multilayer perceptron, Neural
    Computation 4 (1992), 494-501.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from jobs.problems._options import check_size, seeded_generator
from jobs.problems._perceptron import draw_perceptron, perceptron
from jobs.problems.problem import Problem

__all__ = ["mlp_parameters"]


def mlp_parameters(
    *, n: int, samples: int, seed: int, dtype: torch.dtype, device: torch.device
) -> Problem:
    """Build the perceptron's outputs and loss on standard normal data and targets.

    Args:
        n: The number of the network's inputs, at least 1.
        samples: The number of data samples, at least 1.
        seed: Determines the parameters, the data and the targets, at least 0.
        dtype: A floating-point dtype.
        device: Where the data and the point lie.

    Returns:
        Inputs ``layer1.weight`` (2n, n), ``layer1.bias`` (2n,), ``layer2.weight`` (2n, 2n),
        ``layer2.bias`` (2n,), ``layer3.weight`` (max(1, n // 4), 2n) and ``layer3.bias``; output
        ``y`` of shape (samples, max(1, n // 4)); the scalar form is the loss.

    Raises:
        ValueError: ``n``, ``samples`` or ``seed`` is not valid.
    """
    check_size("n", n)
    check_size("samples", samples)
    outputs = max(1, n // 4)
    generator = seeded_generator(seed)
    drawn = draw_perceptron((n, 2 * n, 2 * n, outputs), generator)
    data = torch.randn(samples, n, generator=generator, dtype=torch.float64).to(device, dtype)
    targets = torch.randn(samples, outputs, generator=generator, dtype=torch.float64)
    return Problem(
        function=partial(_outputs, data=data),
        scalar=partial(_loss, data=data, targets=targets.to(device, dtype)),
        point={name: parameter.to(device, dtype) for name, parameter in drawn.items()},
        outputs=("y",),
    )


def _outputs(*parameters: Tensor, data: Tensor) -> Tensor:
    return perceptron(data, parameters)


def _loss(*parameters: Tensor, data: Tensor, targets: Tensor) -> Tensor:
    # Not mse_loss: torch 2.13 cannot differentiate its backward forward (forward over reverse).
    return (perceptron(data, parameters) - targets).square().mean()
