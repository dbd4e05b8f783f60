"""A function whose derivatives have the shape of an arrow: dense first row and column, diagonal.

    f(x) = sum_{i>0} x_0 x_i^2 + x_i^4 / 4 + x_0^3 / 3

and its gradient. Neither the columns of such a matrix nor its rows can share a product, but rows
and columns together can: the example by which bidirectional colouring is explained.

Source:
    T. F. Coleman, A. Verma, The efficient computation of sparse Jacobian matrices using automatic
    differentiation, SIAM Journal on Scientific Computing 19 (1998), 1210-1233.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jobs.problems._options import check_size
from jobs.problems.problem import Problem

__all__ = ["arrow"]


def arrow(*, n: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Build the function at x_i = 1 + sin(i) / 2.

    Args:
        n: The number of variables, at least 2.
        dtype: A floating-point dtype.
        device: Where the point lies.

    Returns:
        Input ``x`` of shape (n,); output ``gradient`` of shape (n,); the scalar form is ``value``
        of shape ().

    Raises:
        ValueError: ``n`` is not valid.
    """
    check_size("n", n, minimum=2)
    point = 1 + torch.sin(torch.arange(n, dtype=torch.float64)) / 2
    return Problem(
        function=_gradient,
        scalar=_value,
        point={"x": point.to(device, dtype)},
        outputs=("gradient",),
    )


def _value(x: Tensor) -> Tensor:
    head, rest = x[0], x[1:]
    return (head * rest**2 + rest**4 / 4).sum() + head**3 / 3


def _gradient(x: Tensor) -> Tensor:
    head, rest = x[:1], x[1:]
    return torch.cat([(rest**2).sum()[None] + head**2, 2 * head * rest + rest**3])
