"""Say why forward and reverse mode can disagree about a function."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from autodiff_core._errors import ModesDisagreeError
from autodiff_core._linearization.graph import custom_backwards


def disagreement(outputs: Sequence[Tensor]) -> ModesDisagreeError:
    """Return the error for a function with two derivatives, with what may be wrong in it.

    Args:
        outputs: Its outputs, with their graph.
    """
    custom = custom_backwards(outputs)
    if custom:
        suspect = f"the jvp or the backward of the custom autograd.Function {custom[0]} is wrong"
    elif not any(output.requires_grad for output in outputs):
        suspect = "the outputs have no graph, so that in reverse mode the derivative is zero"
    else:
        suspect = (
            "a part of it has no graph for reverse mode (torch.no_grad, create_graph=False), or "
            "torch's forward or reverse formula of an operator in it is wrong"
        )
    return ModesDisagreeError(
        "the derivatives of this function in forward mode and in reverse mode are not the same: "
        f"{suspect}; the strategies 'reverse-loop' and 'vectorize' compute that of reverse mode, "
        "the gradient as torch.autograd gives it"
    )
