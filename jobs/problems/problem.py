"""What a problem is: the function to differentiate and the point to do it at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """A function, its scalar form and a default point.

    Attributes:
        function: What jacobian, vjp and jvp differentiate, called ``function(*point.values())``.
        scalar: What hessian, vhp and hvp differentiate, called in the same way, with a zero-dim
            output; None where the problem has no scalar form.
        point: Argument name -> tensor, in argument order.
        outputs: The names of the function's outputs, in order.
    """

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    scalar: Callable[..., Tensor] | None
    point: dict[str, Tensor]
    outputs: tuple[str, ...]
