"""What a comparison of a derivative with differences of the function along a line has shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from jobs.verification.claims import Claim, Measured
from jobs.verification.routes import BEYOND, Mode

# Where the estimated error exceeds this share of the derivative, the differences say nothing.
_CONVERGED = 1e-2
# An agreement is worth no more than the error of the differences.
ACCURATE = 1e-3
# Entries of little effect are moved by much, and a part of the error is that the function bends.
_OF_HIDDEN = 0.1
NOT_CONVERGED = (
    "differences do not converge: near this point there is a kink, a jump or noise, or the "
    "function changes too fast"
)
_ROUNDING = "rounding hides the differences"
DEVIATES = (
    "the derivative differs from the differences by more than their error, and by less than shows "
    "that it is wrong"
)


@dataclass(frozen=True)
class Comparison:
    """How a derivative along a direction compares with differences of the function.

    Attributes:
        state: ``agree``, ``contradicted`` or ``inconclusive``.
        order: 1 for the derivative of the function, 2 for that of its gradient.
        derivative: The derivative as autograd gives it.
        difference: The derivative by differences.
        error: The estimated error of `difference`.
        scale: The size that the two are compared with.
        step: The smallest step, relative to the size of each input tensor.
        evaluations: How often the function, or its gradient, was evaluated.
        reason: Why the comparison is inconclusive; empty otherwise.
        mode: Whether the derivative is by ``reverse`` or ``forward`` mode.
        agrees_to: What the two differ by relative to `scale`, if they agree; else None.
        stops: Where the function stops gradients, if the derivative is contradicted and that is
            seen.
        unseen: How many entries of the point have an effect that is not zero and too small to be
            seen.
        hidden_by: Why that is so where rounding is not the reason.
    """

    state: Literal["agree", "contradicted", "inconclusive"]
    order: int
    derivative: float = math.nan
    difference: float = math.nan
    error: float = math.inf
    scale: float = 0.0
    step: float = 0.0
    evaluations: int = 0
    reason: str = ""
    mode: Mode = "reverse"
    agrees_to: float | None = None
    stops: str = ""
    unseen: int = 0
    hidden_by: str = ""

    def figures(self) -> dict[str, Any]:
        """Return what the result file keeps, with None for what is not finite."""
        facts = vars(self)
        return {
            name: None if isinstance(each, float) and not math.isfinite(each) else each
            for name, each in facts.items()
        }

    def __str__(self) -> str:
        """Say how it went, in one line."""
        what = "the function" if self.order == 1 else "its gradient"
        if self.state == "inconclusive":
            return f"inconclusive for {what}: {self.reason}"
        return (
            f"along a random direction {what} changes by {self.difference:.9g} "
            f"(by differences, with an error of about {self.error:.1e}) and the derivative gives "
            f"{self.derivative:.9g}" + (f" (see {self.stops})" if self.stops else "")
        )


def comparison_summary(comparisons: Sequence[Comparison]) -> str:
    """Return how closely comparisons that agree do so, in one line."""
    largest = max(
        abs(each.derivative - each.difference) / (each.scale or 1) for each in comparisons
    )
    what = "the function" if len(comparisons) == 1 else "the function and its gradient"
    return f"finite differences of {what} agree, largest relative deviation {largest:.1e}"


def judged(
    measured: Measured, claim: Claim, tolerance: float, *, is_of_hidden: bool = False
) -> Comparison:
    """Say what was measured of a claim along one line.

    Args:
        measured: What was measured.
        claim: The claim.
        tolerance: The relative error to which the claim is known.
        is_of_hidden: Whether only entries of little effect were moved. Then an agreement shows as
            much as the error of the differences says.
    """
    converged, accurate = (_OF_HIDDEN, _OF_HIDDEN) if is_of_hidden else (_CONVERGED, ACCURATE)
    scale = measured.scale
    found = Comparison(
        "inconclusive",
        claim.order,
        derivative=measured.slope,
        difference=measured.value,
        error=measured.error,
        scale=scale,
        step=measured.step,
    )
    if not math.isfinite(measured.slope):
        return replace(found, reason="the derivative is not finite at this point")
    if not math.isfinite(measured.error):
        return replace(found, reason="the function is not finite near this point")
    scale = max(scale, abs(measured.value))
    found = replace(found, scale=scale)
    deviation = deviation_of(found)
    # Where the two do not meet, the scale may be that of a wrong derivative.
    smaller = scale if deviation <= tolerance * scale else min(scale, abs(measured.value))
    floor = rounding_of(measured, claim)
    if max(abs(measured.slope), abs(measured.value)) <= floor:
        return replace(found, state="agree", agrees_to=0.0)
    if measured.error > max(converged * smaller, 10 * measured.rounding):
        return replace(found, reason=NOT_CONVERGED)
    if deviation > BEYOND * measured.error + 3 * tolerance * scale + floor:
        return replace(found, state="contradicted")
    if deviation > max(tolerance * scale, 3 * measured.error) + floor:
        return replace(found, reason=DEVIATES)
    # Where rounding would hide a deviation, nothing is shown.
    is_hidden = deviation > max(converged, tolerance) * scale
    if not is_of_hidden and (is_hidden or measured.error > converged * scale > 0):
        return replace(found, reason=_ROUNDING)
    if measured.error > max(max(accurate, tolerance) * scale, 10 * measured.rounding):
        return replace(found, reason=NOT_CONVERGED)
    return replace(found, state="agree", agrees_to=deviation / scale if scale else 0.0)


def rounding_of(measured: Measured, claim: Claim) -> float:
    """Return the error of a derivative that is zero only up to the rounding of the values."""
    return 16 * claim.epsilon * measured.size


def deviation_of(comparison: Comparison) -> float:
    """Return by how much a derivative and the differences differ."""
    return abs(comparison.derivative - comparison.difference)
