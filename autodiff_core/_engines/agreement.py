"""Check that an engine agrees with plain products before its results are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autodiff_core._errors import Fallback
from autodiff_core._tensors.vectors import Vector, combination

LinearMap = Callable[[Vector], tuple[Tensor, ...]]
"""Maps one vector to the tensors of its image."""

ReportFallback = Callable[[Fallback], None]
"""Called with each fallback when it is taken."""

Precision = Callable[[], torch.dtype]
"""Returns the least precise dtype that a derivative runs through, found when it is asked for."""


def verify(
    linear_map: LinearMap,
    stacks: Vector,
    images: Sequence[Tensor],
    count: int,
    kind: str,
    precision: Precision,
) -> tuple[Tensor, ...]:
    """Compare images with one plain application to a random combination of the vectors.

    Args:
        linear_map: The map in its plain form.
        stacks: The vectors, stacked.
        images: Their images, stacked.
        count: How many vectors there are.
        kind: How the images were computed, for the message.
        precision: The least precise dtype that they were computed in.

    Returns:
        The plain image of the combination.

    Raises:
        RuntimeError: They disagree.
    """
    generator = torch.Generator().manual_seed(count)
    weights = torch.randn(count, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = linear_map(combination(weights, stacks))
        require_agreement(expected, combination(weights, images), images, kind, precision)
    return expected


def require_agreement(
    expected: Sequence[Tensor],
    given: Vector,
    parts: Sequence[Tensor],
    kind: str,
    precision: Precision,
) -> None:
    """Compare the image of a vector with the one that the plain map gives.

    Args:
        expected: The plain image.
        given: The image to check.
        parts: The images that were combined into it, of shape (vectors, *shape) each; they give
            the scale of the comparison.
        kind: How the image was computed, for the message.
        precision: The least precise dtype that it was computed in.

    Raises:
        RuntimeError: They disagree.
    """
    for plain, image, part in zip(expected, given, parts, strict=True):
        assert image is not None
        difference = relative_difference(plain, image, part)
        if exceeds(difference, plain.dtype, precision):
            raise RuntimeError(
                f"the {kind} result disagreed with the plain one "
                f"(relative difference {difference:.1e})"
            )


def agreement_tolerance(dtype: torch.dtype) -> float:
    """Return the largest relative difference between two correct computations of one number.

    It is half of the dtype's digits: rounding errors amplified by the function's condition stay
    below it, while a wrong batching rule or a lost dependence changes the leading digits.
    """
    return torch.finfo(dtype).eps ** 0.5 if dtype.is_floating_point or dtype.is_complex else 0.0


def exceeds(difference: float, dtype: torch.dtype, precision: Precision) -> bool:
    """Return whether two computations of one number differ by more than their rounding explains.

    Args:
        difference: Their relative difference.
        dtype: The dtype of the number.
        precision: The least precise dtype that it was computed in; asked for where it matters.
    """
    if not difference > agreement_tolerance(dtype):
        return False
    return difference > max(map(agreement_tolerance, (dtype, precision())))


def relative_difference(plain: Tensor, combined: Tensor, parts: Tensor) -> float:
    """Return how far two results differ, relative to the size of what was combined.

    Where the plain result is not finite, nothing can be said. An entry that is finite in the plain
    result alone makes the difference infinite: an engine that multiplies by a mask where torch
    selects gives 0 x inf, which is no rounding error.

    Args:
        plain: The reference.
        combined: The result to compare, of the same shape.
        parts: Shape (vectors, *plain.shape): what `combined` was summed from; gives the scale.
    """
    finite = torch.isfinite(plain)
    if not bool(torch.isfinite(combined[finite]).all()):
        return math.inf
    finite &= torch.isfinite(combined)
    if not finite.any():
        return 0.0
    magnitude = torch.nan_to_num(parts.abs(), nan=0.0, posinf=0.0).sum(0)[finite].max()
    difference = (plain - combined).abs()[finite].max()
    return float(difference / magnitude) if difference > 0 else 0.0
