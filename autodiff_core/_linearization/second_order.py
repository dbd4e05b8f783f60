"""Check second derivatives that a custom backward could falsify.

The second derivative of a custom `torch.autograd.Function` is the derivative of its backward. A
backward that leaves torch for numpy, or that is declared once-differentiable, has none, and
autograd treats what it cannot see as constant: the Hessian lacks a term, without an error. So if
a graph holds a custom backward, one product with the Hessian is compared with central differences
of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from autodiff_core._errors import DoubleBackwardError
from autodiff_core._linearization.graph import custom_backwards

_VISIBLE_SHARE = 1e-2
"""The smallest relative error of a product that central differences detect reliably."""
# What is closer to the first differences would be within the doubt of the second ones.
_AGREES = 0.9


def custom_functions(tensor: Tensor) -> tuple[str, ...]:
    """Return the names of the custom `torch.autograd.Function`s in a tensor's graph."""
    names = (each.removesuffix("Backward") for each in custom_backwards([tensor]))
    return tuple(dict.fromkeys(names))


def check_second_order(
    gradient: Callable[..., tuple[Tensor, ...]],
    product: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
    primals: Sequence[Tensor],
    replayed: Callable[[], AbstractContextManager[None]],
    precision: torch.dtype,
    names: Sequence[str],
) -> None:
    """Compare a product with the Hessian with central differences of the gradient.

    Where the product does not agree with differences of one step size, those of two show whether
    the function is smooth enough at the point for the comparison; if they disagree with each other,
    no error is raised.

    Args:
        gradient: The gradient as a function of the primals.
        product: The product of the Hessian with one vector, as a function of the vector.
        primals: The point.
        replayed: Returns a context in which random numbers are those of the first evaluation.
        precision: The least precise dtype that the gradient is computed in.
        names: The names of the custom Functions, for the message.

    Raises:
        DoubleBackwardError: The product lacks a term that the differences show.
    """
    direction = _random_direction(primals)
    epsilon = torch.finfo(precision).eps
    step = epsilon ** (1 / 3)

    def along(distance: float) -> Tensor:
        with torch.no_grad(), replayed():
            shifted = [p + distance * d for p, d in zip(primals, direction, strict=True)]
            return _flat(gradient(*shifted))

    def difference(distance: float) -> Tensor:
        return (along(distance) - along(-distance)) / (2 * distance)

    coarse, given = difference(step), _flat(product(direction))
    if bool((given - coarse).norm() < _AGREES * _VISIBLE_SHARE * given.norm()):
        return
    fine = difference(step / 2)
    missing = (given - fine).norm()
    noise = 1e3 * epsilon * along(0).norm() / step
    doubt = torch.stack(
        [
            10 * (coarse - fine).norm(),
            _VISIBLE_SHARE * torch.maximum(fine.norm(), given.norm()),
            noise,
        ]
    ).max()
    if bool(missing > doubt):
        raise DoubleBackwardError(
            f"a custom autograd.Function in this function ({', '.join(names)}) has a backward that "
            "autograd cannot differentiate (it leaves torch, or is declared once-differentiable) "
            "or that is not the derivative of its forward (a reversed or straight-through "
            "gradient), so the second derivative by any strategy would not be that of its "
            "gradient; valid is a backward of differentiable operations of torch that is the "
            "derivative of the forward"
        )


def _random_direction(primals: Sequence[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    return tuple(
        torch.randn(primal.shape, generator=generator, dtype=torch.float64).to(
            primal.device, primal.dtype
        )
        for primal in primals
    )


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    parts = [torch.view_as_real(part) if part.is_complex() else part for part in tensors]
    return torch.cat([part.detach().reshape(-1).to("cpu", torch.float64) for part in parts])
