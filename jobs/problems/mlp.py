"""A multilayer perceptron, differentiated with respect to its input.

    y = W3 tanh(W2 tanh(W1 x + b1) + b2) + b3,    n -> 2n -> 2n -> n

The weights are constants. With n = 2048 the widths are 2048-4096-4096-2048.

Sources:
    D. E. Rumelhart, G. E. Hinton, R. J. Williams, Learning representations by back-propagating
    errors, Nature 323 (1986), 533-536.
    Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, Efficient BackProp, in Neural Networks: Tricks
    of the Trade (1998), 9-50: the scale of the weights.
"""

from __future__ import annotations

from functools import partial

import torch

from jobs.problems._options import check_size, seeded_generator
from jobs.problems._perceptron import draw_perceptron, perceptron
from jobs.problems.problem import Problem

__all__ = ["mlp"]


def mlp(*, n: int, seed: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Build the perceptron at a standard normal input.

    Args:
        n: The number of inputs and of outputs, at least 1.
        seed: Determines the weights and the input, at least 0.
        dtype: A floating-point dtype.
        device: Where the weights and the point lie.

    Returns:
        Input ``x`` and output ``y``, both of shape (n,); no scalar form.

    Raises:
        ValueError: ``n`` or ``seed`` is not valid.
    """
    check_size("n", n)
    generator = seeded_generator(seed)
    drawn = draw_perceptron((n, 2 * n, 2 * n, n), generator)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    parameters = tuple(parameter.to(device, dtype) for parameter in drawn.values())
    return Problem(
        function=partial(perceptron, parameters=parameters),
        scalar=None,
        point={"x": x.to(device, dtype)},
        outputs=("y",),
    )
