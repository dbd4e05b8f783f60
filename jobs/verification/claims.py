"""What is measured along a line: a claim about a derivative, and what differences show of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from jobs.verification.routes import real_vector


@dataclass(frozen=True)
class Claim:
    """What a route says of the derivative of <u, value> along any direction.

    Attributes:
        order: 1 for the derivative of the function, 2 for that of its gradient.
        cotangent: u, float64 of shape (values,).
        terms: Takes a direction; returns terms whose sum is the derivative.
        epsilon: The unit of rounding that the route computes with.
        entries: The derivative by each entry of the point, float64, by reverse mode; empty if
            unknown.
        entries_at: Takes another point and returns the `entries` there.
    """

    order: int
    cotangent: Tensor
    terms: Callable[[Sequence[Tensor]], Tensor]
    epsilon: float
    entries: Tensor
    entries_at: Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Measured:
    """A derivative along a line as a route claims it, and as differences show it.

    Attributes:
        slope: The claimed derivative.
        scale: The size that the two are compared with.
        value: The derivative by differences.
        error: The estimated error of `value`.
        rounding: The part of it that is rounding.
        step: The smallest step.
        size: The size of <u, value>, to whose rounding the claim is relative as well.
        parts: What each entry of the point contributes to the derivative, in size, float64; empty
            if unknown.
    """

    slope: float
    scale: float
    value: float
    error: float
    rounding: float
    step: float
    size: float
    parts: Tensor


@dataclass(frozen=True, eq=False)
class Group:
    """Lines along which the same entries of the point are moved.

    Attributes:
        number: The number of the first line; negative where some entries are left where they are.
        members: Which entries are moved, boolean; None for all.
        rounding: How large the rounding of the differences may be relative to the derivative; 0 for
            a part of the tolerance.
    """

    number: int
    members: Tensor | None = None
    rounding: float = 0.0

    def other(self, further: int) -> Group:
        """Return the group for another line."""
        return replace(self, number=self.number + further)


def of_entries(
    order: int,
    cotangent: Tensor,
    epsilon: float,
    entries: Tensor,
    entries_at: Callable[[Sequence[Tensor]], Tensor],
) -> Claim:
    """Return the claim of a route that knows the derivative by each entry of the point.

    The arguments are the attributes of the claim.
    """

    def terms(direction: Sequence[Tensor]) -> Tensor:
        return entries * real_vector(direction)

    return Claim(order, cotangent, terms, epsilon, entries, entries_at)
