"""Backward passes over a graph, by torch's engine itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import has_torch_function


def backward_pass(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    *,
    create_graph: bool,
) -> tuple[Tensor, ...]:
    """Run one backward pass and keep the graph, as `torch.autograd.grad` does.

    To compare the shapes of cotangents with those of outputs, that function loads sympy, which
    takes longer than a small derivative. It is called where a mode or a subclass of tensors is to
    see the call.

    Args:
        outputs: Tensors that require a gradient.
        inputs: The tensors with respect to which to differentiate.
        cotangents: A tensor of the shape and dtype of each output.
        create_graph: Whether the result must be differentiable.

    Returns:
        For each input a tensor of its shape; zeros where no output depends on it.
    """
    run = getattr(torch.autograd.graph, "_engine_run_backward", None)
    if run is None or has_torch_function((*outputs, *inputs, *cotangents)):
        return torch.autograd.grad(
            outputs,
            inputs,
            cotangents,
            retain_graph=True,
            create_graph=create_graph,
            materialize_grads=True,
        )
    found = run(
        tuple(outputs),
        tuple(cotangents),
        True,  # keep the graph
        create_graph,
        tuple(inputs),
        True,  # allow inputs that are not used
        accumulate_grad=False,
    )
    return tuple(
        torch.zeros_like(like, requires_grad=create_graph) if each is None else each
        for each, like in zip(found, inputs, strict=True)
    )
