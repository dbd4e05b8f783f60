"""Two 3 x 3 convolutions over an image, with tanh between them.

    y = W_2 * tanh(W_1 * x + b_1)

Each output depends on the 5 x 5 inputs around it: the Jacobian has 25 entries a row, whatever the
number of hidden channels.

Source:
    Y. LeCun, B. Boser, J. S. Denker et al., Backpropagation applied to handwritten zip code
    recognition, Neural Computation 1 (1989), 541-551.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from jobs.problems._options import check_size, seeded_generator
from jobs.problems.problem import Problem

__all__ = ["convolution_stack"]


def convolution_stack(
    *, n: int, channels: int, seed: int, dtype: torch.dtype, device: torch.device
) -> Problem:
    """Build the stack on an image of random numbers.

    Args:
        n: The number of pixels along each side, at least 1.
        channels: Hidden channels, at least 1.
        seed: Determines the weights and the image.
        dtype: A floating-point dtype.
        device: Where the weights and the image lie.

    Returns:
        Input ``image`` of shape (n, n); output ``filtered`` of the same shape; no scalar form.

    Raises:
        ValueError: An option is not valid.
    """
    check_size("n", n)
    check_size("channels", channels)
    generator = seeded_generator(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = drawn(channels, 1, 3, 3) / 3
    bias = drawn(channels) * 0.1
    combined = drawn(1, channels, 3, 3) / (3 * channels**0.5)
    image = drawn(n, n)
    return Problem(
        function=partial(
            _filtered,
            weights=weights.to(device, dtype),
            bias=bias.to(device, dtype),
            combined=combined.to(device, dtype),
        ),
        scalar=None,
        point={"image": image.to(device, dtype)},
        outputs=("filtered",),
    )


def _filtered(image: Tensor, *, weights: Tensor, bias: Tensor, combined: Tensor) -> Tensor:
    hidden = torch.tanh(conv2d(image[None, None], weights, bias, padding=1))
    return conv2d(hidden, combined, padding=1)[0, 0]
