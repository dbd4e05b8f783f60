"""The multilayer perceptron as a plain function of its input and its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = ["draw_linear", "draw_perceptron", "perceptron"]


def draw_linear(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a weight of shape (outputs, inputs) and a bias of shape (outputs,), both float64.

    The weight's standard deviation is ``1 / sqrt(inputs)``, which keeps activations, and so
    derivatives, of the same order at every size (LeCun, Bottou, Orr and Müller 1998).
    """
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    bias = torch.randn(outputs, generator=generator, dtype=torch.float64)
    return weight / inputs**0.5, bias * 0.1


def draw_perceptron(sizes: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the float64 parameters of a perceptron.

    Args:
        sizes: The widths from the input to the output.
        generator: A CPU generator.

    Returns:
        ``layer1.weight``, ``layer1.bias``, ``layer2.weight``, ... in this order.
    """
    parameters = {}
    for layer, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        weight, bias = draw_linear(inputs, outputs, generator)
        parameters[f"layer{layer}.weight"] = weight
        parameters[f"layer{layer}.bias"] = bias
    return parameters


def perceptron(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Evaluate the perceptron: tanh after every layer but the last.

    Args:
        x: Inputs of shape (..., inputs).
        parameters: weight, bias, weight, bias, ... as ``draw_perceptron`` orders them.

    Returns:
        Outputs of shape (..., outputs).
    """
    *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
    for weight, bias in hidden:
        x = torch.tanh(linear(x, weight, bias))
    return linear(x, *last)
