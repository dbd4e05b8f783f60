"""An identity with a wrong derivative, for checks that have to find it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def wrong_at(number: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the identity, with a derivative of 1.1 in place of 1 where an entry is a number."""

    class Wrong(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return gradient * torch.where(x == number, 1.1, 1.0)

    return Wrong.apply
