"""The checks of ``strict=True``: a structurally zero derivative is an error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def require_graph(operation: str, tensors: Sequence[Tensor], what: str) -> None:
    """Check that every tensor depends differentiably on the inputs.

    Args:
        operation: The function that the user called, for the message.
        tensors: Outputs, gradients or derivatives.
        what: What the tensors are, for the message.

    Raises:
        RuntimeError: A tensor does not depend on the inputs.
    """
    for index, tensor in enumerate(tensors):
        if not tensor.requires_grad:
            raise RuntimeError(
                f"{operation}: {what} {index} does not depend differentiably on the inputs, which "
                "strict=True forbids; with strict=False its derivative is zero"
            )


def require_dependence(
    operation: str, outputs: Sequence[Tensor], inputs: Sequence[Tensor], *, jointly: bool
) -> None:
    """Check, on the graph, that outputs depend on inputs.

    Args:
        operation: The function that the user called, for the message.
        outputs: Tensors that require a gradient.
        inputs: The tensors that the outputs must depend on.
        jointly: Whether it is enough that any output depends on each input, as for a product
            with a vector; otherwise every output must depend on every input.

    Raises:
        RuntimeError: An input has no influence on the outputs.
    """
    groups = [list(outputs)] if jointly else [[output] for output in outputs]
    for index, group in enumerate(groups):
        gradients = torch.autograd.grad(
            group,
            inputs,
            [torch.zeros_like(output) for output in group],
            retain_graph=True,
            allow_unused=True,
        )
        for number, gradient in enumerate(gradients):
            if gradient is None:
                which = "no output depends" if jointly else f"output {index} does not depend"
                raise RuntimeError(
                    f"{operation}: {which} on input {number}, which strict=True forbids; with "
                    "strict=False the derivative is zero"
                )
