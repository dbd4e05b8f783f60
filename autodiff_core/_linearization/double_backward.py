"""Forward derivatives from two reverse passes (double backward)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autodiff_core._errors import DoubleBackwardError
from autodiff_core._linearization.adjoint import AdjointIdentity, is_inexact, lengths, random_vector
from autodiff_core._linearization.graph import least_precise, nodes_between
from autodiff_core._tensors.backward_pass import backward_pass
from autodiff_core._tensors.vectors import Vector


def pull(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangent: Vector,
    *,
    create_graph: bool,
) -> tuple[Tensor, ...]:
    """Run one backward pass over a graph and keep the graph.

    Args:
        outputs: The outputs; those that require no gradient contribute zero.
        inputs: The tensors with respect to which to differentiate.
        cotangent: A tensor for each output, or None for zeros.
        create_graph: Whether the result must be differentiable.

    Returns:
        For each input a tensor of its shape; zeros where no output depends on it.
    """
    pairs = [
        (output, vector)
        for output, vector in zip(outputs, cotangent, strict=True)
        if vector is not None and output.requires_grad
    ]
    if not pairs:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    used, vectors = zip(*pairs, strict=True)
    return backward_pass(used, inputs, vectors, create_graph=create_graph)


class TransposedPullback:
    """The pushforward as the derivative of the pullback, which is linear in its cotangent.

    J v is the gradient of <Jᵀ u, v> with respect to u: J. Townsend, "A new trick for calculating
    Jacobian vector products" (2017). The trick needs a backward pass that is itself
    differentiable; where it is not (because it leaves torch for numpy, for example) the numbers
    are wrong without an error. The cotangent u is random, so that two scalar products check
    <J v, u> = <v, Jᵀ u>.
    """

    def __init__(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], *, create_graph: bool
    ) -> None:
        """Pull a random cotangent back and keep the graph of the pullback."""
        self._outputs = outputs
        self._inputs = inputs
        self._create_graph = create_graph
        self._cotangent = random_vector(outputs, seed=0)
        for part in self._cotangent:
            part.requires_grad_(is_inexact(part))
        with torch.enable_grad():
            self._pulled = pull(outputs, inputs, self._cotangent, create_graph=True)
        self._identity = AdjointIdentity(
            outputs,
            inputs,
            self._cotangent,
            self._pulled,
            least_precise(outputs, inputs, nodes_between(outputs, inputs)),
        )

    def push(self, tangent: Vector) -> tuple[Tensor, ...]:
        """Return one Jacobian-vector product: a tensor for each output."""
        inexact = [u for u in self._cotangent if u.requires_grad]
        pushed = iter(pull(self._pulled, inexact, tangent, create_graph=self._create_graph))
        return tuple(
            next(pushed).to(output.dtype) if u.requires_grad else torch.zeros_like(output)
            for output, u in zip(self._outputs, self._cotangent, strict=True)
        )

    def check(self, tangents: Vector, images: Sequence[Tensor]) -> None:
        """Check the adjoint identity for stacked tangents and their images.

        The tolerance is that of `AdjointIdentity`, or half of the digits that the pullback itself
        has: a custom backward may compute less precisely than its arguments are.

        Raises:
            DoubleBackwardError: The identity does not hold.
        """
        if not self._identity.holds(tangents, images) and not self._identity.holds(
            tangents, images, least_tolerance=self._noise() ** 0.5
        ):
            raise DoubleBackwardError(
                "the double-backward trick gives wrong numbers for this function: a "
                "backward in it is not differentiable, as one that leaves torch is not; "
                "the strategy 'forward-mode' does without the trick, and so does the "
                "product from the other side (vjp for jvp, vhp for hvp)"
            )

    def _noise(self) -> float:
        """Return the relative rounding of the pullback: how far 3 u gives another result than u."""
        three = tuple(3 * u.detach() for u in self._cotangent)
        again = pull(self._outputs, self._inputs, three, create_graph=False)
        pairs = list(zip(again, self._pulled, strict=True))
        error = lengths([(a / 3 - b.detach())[None] for a, b in pairs])
        size = lengths([b[None] for _, b in pairs])
        return float(error / size) if bool(error > 0) else 0.0
