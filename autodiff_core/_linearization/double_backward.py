"""Forward derivatives from two reverse passes (double backward)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autodiff_core._engines.agreement import agreement_tolerance
from autodiff_core._errors import DoubleBackwardError
from autodiff_core._linearization.graph import least_precise
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
    return torch.autograd.grad(
        [output for output, _ in pairs],
        inputs,
        [vector for _, vector in pairs],
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )


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
        generator = torch.Generator().manual_seed(0)
        self._cotangent = tuple(
            _standard_normal(output, generator).requires_grad_(_is_inexact(output))
            for output in outputs
        )
        self._precision = least_precise(outputs, inputs)
        with torch.enable_grad():
            self._pulled = pull(outputs, inputs, self._cotangent, create_graph=True)

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

        The tolerance is half of the digits of the terms. Where the terms cancel down to rounding
        (the derivative is zero up to rounding), the tolerance is the error that rounding of the
        outputs causes in a derivative, ε |y| / |x|.

        Raises:
            DoubleBackwardError: The identity does not hold.
        """
        with torch.no_grad():
            left, left_size = _scalar_products(images, self._cotangent)
            right, right_size = _scalar_products(tangents, self._pulled)
            error = (left - right).abs()
            tolerance = agreement_tolerance(self._precision)
            rounding = 16 * tolerance**2 * _root_mean_square(self._outputs)
            rounding = rounding / (_root_mean_square(self._inputs) or 1.0)
            lengths = _lengths(tangents) * _lengths([u[None] for u in self._cotangent])
            allowed = tolerance * (left_size + right_size) + rounding * lengths
            wrong = torch.isfinite(error) & (error > allowed)
            if bool(wrong.any()):
                raise DoubleBackwardError(
                    "the double-backward trick gives wrong numbers for this function: a "
                    "backward in it is not differentiable, as one that leaves torch is not; "
                    "the strategy 'forward-mode' does without the trick, and so does the "
                    "product from the other side (vjp for jvp, vhp for hvp)"
                )


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    dtype = torch.complex128 if like.is_complex() else torch.float64
    drawn = torch.randn(like.shape, generator=generator, dtype=dtype)
    return drawn.to(device=like.device, dtype=like.dtype)


def _scalar_products(
    stacks: Sequence[Tensor | None], vector: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return real scalar products of stacked vectors with one vector, and of absolute terms."""
    products = torch.zeros(())
    sizes = torch.zeros(())
    for stack, part in zip(stacks, vector, strict=True):
        if stack is None or not _is_inexact(part):
            continue
        wide = torch.complex128 if part.is_complex() else torch.float64
        terms = (stack.to(wide) * part.to(wide).conj()).real.reshape(len(stack), part.numel())
        products = products + terms.sum(1).cpu()
        sizes = sizes + terms.abs().sum(1).cpu()
    return products, sizes


def _lengths(stacks: Sequence[Tensor | None]) -> Tensor:
    """Return the Euclidean lengths of stacked vectors, shape (vectors,)."""
    squares = torch.zeros(())
    for stack in stacks:
        if stack is not None and _is_inexact(stack):
            flat = (
                stack.detach()
                .abs()
                .to(torch.float64)
                .reshape(len(stack), -1 if stack.numel() else 0)
            )
            squares = squares + flat.square().sum(1).cpu()
    return squares.sqrt()


def _root_mean_square(tensors: Sequence[Tensor]) -> float:
    """Return the root mean square of all finite entries, or 0 if there are none."""
    parts = [t.detach().abs().to("cpu", torch.float64).reshape(-1) for t in tensors]
    entries = torch.cat([part[torch.isfinite(part)] for part in parts])
    return float(entries.square().mean().sqrt()) if entries.numel() else 0.0
