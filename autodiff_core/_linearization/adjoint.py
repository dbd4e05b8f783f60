"""The adjoint identity <u, J v> = <Jᵀ u, v>, by which forward and reverse products are compared.

Both sides are the same number whatever the function is, so a forward formula of torch or of the
user that is wrong, and a graph that one of the two modes does not see, make them differ for
random u and v.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autodiff_core._engines.agreement import agreement_tolerance
from autodiff_core._tensors.vectors import Vector


@dataclass(frozen=True)
class KnownPullback:
    """A product in reverse mode that a caller knows already.

    Attributes:
        outputs: The outputs at the point; of second order the gradient.
        cotangent: A random u, a tensor for each output.
        image: Jᵀ u, a tensor for each input.
        precision: The least precise dtype that the derivative runs through.
    """

    outputs: tuple[Tensor, ...]
    cotangent: tuple[Tensor, ...]
    image: tuple[Tensor, ...]
    precision: torch.dtype


class AdjointIdentity:
    """A random cotangent u and its pullback Jᵀ u, with which images J v are compared."""

    def __init__(
        self,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor],
        cotangent: Sequence[Tensor],
        pulled: Sequence[Tensor],
        precision: torch.dtype,
    ) -> None:
        """Store one side of the identity.

        Args:
            outputs: The outputs at the point.
            inputs: The point.
            cotangent: u, a tensor for each output.
            pulled: Jᵀ u, a tensor for each input.
            precision: The least precise dtype that the derivative runs through.
        """
        self._tolerance = agreement_tolerance(precision)
        self._cotangent = [part.detach() for part in cotangent]
        self._pulled = [part.detach() for part in pulled]
        rounding = _root_mean_square(outputs) / (_root_mean_square(inputs) or 1.0)
        self._rounding = 16 * rounding * lengths([part[None] for part in self._cotangent])

    def holds(
        self,
        tangents: Vector,
        images: Sequence[Tensor],
        *,
        even_if_infinite: bool = True,
        least_tolerance: float = 0.0,
    ) -> bool:
        """Return whether stacked tangents v and their images J v fulfil the identity.

        The tolerance is half of the digits of the terms. Where the terms cancel down to rounding
        (the derivative is zero up to rounding), the tolerance is the error that rounding of the
        outputs causes in a derivative, ε |y| / |x|. Nothing is said where Jᵀ u is not finite.

        Args:
            tangents: v.
            images: J v.
            even_if_infinite: Whether images that are not finite pass.
            least_tolerance: A relative error that passes in any case.
        """
        with torch.no_grad():
            left, left_size = _scalar_products(images, self._cotangent)
            right, right_size = _scalar_products(tangents, self._pulled)
            error = (left - right).abs()
            tolerance = max(self._tolerance, least_tolerance)
            rounding = tolerance**2 * self._rounding * lengths(tangents)
            allowed = tolerance * (left_size + right_size) + rounding
            wrong = torch.isfinite(error) & (error > allowed)
            if not even_if_infinite:
                wrong = wrong | (torch.isfinite(right) & ~torch.isfinite(left))
            return not bool(wrong.any())


def is_inexact(tensor: Tensor) -> bool:
    """Return whether a tensor is of floating point or complex, so that it has derivatives."""
    return tensor.is_floating_point() or tensor.is_complex()


def random_vector(like: Sequence[Tensor], seed: int) -> tuple[Tensor, ...]:
    """Return standard normal numbers of the shapes, dtypes and devices of tensors."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(_standard_normal(tensor, generator) for tensor in like)


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
        if stack is None or not is_inexact(part):
            continue
        wide = torch.complex128 if part.is_complex() else torch.float64
        terms = (stack.to(wide) * part.to(wide).conj()).real.reshape(len(stack), part.numel())
        products = products + terms.sum(1).cpu()
        sizes = sizes + terms.abs().sum(1).cpu()
    return products, sizes


def lengths(stacks: Sequence[Tensor | None]) -> Tensor:
    """Return the Euclidean lengths of stacked vectors, shape (vectors,)."""
    squares = torch.zeros(())
    for stack in stacks:
        if stack is not None and is_inexact(stack):
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
