"""Check that an engine agrees with plain products before its results are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

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


_ROUNDINGS = 4.0
"""How many times as large as the plain map's own rounding a difference may be; never more than a
quarter of the digits."""


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
        vector = combination(weights, stacks)
        expected = linear_map(vector)
        given = combination(weights, images)
        again = partial(rounded_otherwise, linear_map, vector)
        require_agreement(expected, given, images, kind, precision, again)
    return expected


def rounded_otherwise(linear_map: LinearMap, vector: Vector) -> list[Tensor]:
    """Return the image of a vector by a computation whose numbers are rounded in other places."""
    scaled = tuple(None if part is None else 3 * part for part in vector)
    return [part / 3 for part in linear_map(scaled)]


def require_agreement(
    expected: Sequence[Tensor],
    given: Vector,
    parts: Sequence[Tensor],
    kind: str,
    precision: Precision,
    again: Callable[[], Sequence[Tensor]],
) -> None:
    """Compare the image of a vector with the one that the plain map gives.

    A badly conditioned function amplifies rounding beyond the tolerance. So a difference above it
    counts as rounding if the plain image, rounded otherwise, differs from itself about as much.

    Args:
        expected: The plain image.
        given: The image to check.
        parts: The images that were combined into it, of shape (vectors, *shape) each; they give
            the scale of the comparison.
        kind: How the image was computed, for the message.
        precision: The least precise dtype that it was computed in.
        again: Returns the plain image, rounded otherwise; called where it matters.

    Raises:
        RuntimeError: They disagree.
    """
    for place, (plain, image, part) in enumerate(zip(expected, given, parts, strict=True)):
        assert image is not None
        difference = relative_difference(plain, image, part)
        if exceeds(difference, plain.dtype, precision):
            rounding = relative_difference(plain, again()[place], part)
            largest = agreement_tolerance(plain.dtype) ** 0.5
            if difference <= min(_ROUNDINGS * rounding, largest):
                continue
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
