"""Compare a derivative with the function itself, along random directions, by finite differences.

Products by two strategies cannot show what no strategy sees: a tensor that is detached on the way,
a backward pass that was written wrong, a module that its backward pass finds changed. Differences
of the function do.

For a random cotangent u and a random direction v the derivative of L(t) = Re <u, f(x + t v)> at
t = 0 is <Jᵀ u, v> by reverse mode and <u, J v> by forward mode; for second order f is the gradient.
Central differences are extrapolated to the step 0, with an estimate of their own error (C. J. F.
Ridders, "Accurate computation of F'(x) and F'(x) F''(x)", Advances in Engineering Software 4, 1982;
W. H. Press et al., "Numerical Recipes", section 5.7). They are taken in double precision where the
function allows it, stages of lower precision inside it included.

A derivative is said to be contradicted only where it differs by far more than that error, in two
directions with two ranges of steps: at kinks, jumps and noise the estimates do not converge, and
the comparison is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from jobs.errors import JobError
from jobs.functions.tracebacks import one_line
from jobs.verification.lines import Claim, Lines, Measured
from jobs.verification.routes import BEYOND, Mode, Routes
from jobs.verification.stopped_gradients import stopped_gradients

# Where the estimated error exceeds this share of the derivative, the differences say nothing.
_CONVERGED = 1e-2
# An agreement is worth no more than the error of the differences.
_ACCURATE = 1e-3
_NOT_CONVERGED = (
    "differences do not converge: near this point there is a kink, a jump or noise, or the "
    "function changes too fast"
)
_ROUNDING = "rounding hides the differences"
_DEVIATES = (
    "the derivative differs from the differences by more than their error, and by less than shows "
    "that it is wrong"
)
_SINGULAR = (
    "reverse mode gives no finite numbers at this point, near which the function is finite: one of "
    "its operations has a derivative that is singular here, as the norm of a vector of zeros has. "
    "Move the point, or write the function without that operation (x.square().sum() in place of "
    "x.norm() ** 2)"
)
_UNSETTLED = "two directions do not tell the same"
# The first step is ε to a power, of the size of each input tensor. ε^(1/3) would balance the
# truncation of one step with the rounding of the values; functions have more noise than that. Where
# a line does not agree, another one has steps that avoid the reason: small ones for kinks and fast
# changes, large ones for rounding, and for noise, which seems to contradict small steps.
_FIRST = 0.3
_OTHER = {_NOT_CONVERGED: 0.6, _DEVIATES: 0.4}
_LARGE = 0.2
_THIRD = 0.25
_STEPS = 2


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


def compare_with_differences(routes: Routes) -> tuple[Comparison, ...]:
    """Compare the derivative of a job's function, and of its gradient, with differences.

    Args:
        routes: The routes to the derivative; one that is found to be wrong is rejected.

    Returns:
        One comparison for the function and, of second order, one for the gradient.

    Raises:
        JobError: The function returns a different value on each call.
    """
    routes.is_compared = True
    is_second_order = routes.evaluations.is_second_order
    try:
        lines = Lines(routes, _FIRST)
        gradient = (_settled(routes, lines, lines.claim_of_gradient()),) if is_second_order else ()
    except JobError:
        raise
    # A function may raise anything away from its point; what is wrong at the point, the job tells.
    except Exception as error:
        orders = (1, 2) if is_second_order else (1,)
        return tuple(_failed(each, error) for each in orders)
    return (*gradient, _of_the_matrix(routes, lines))


def _of_the_matrix(routes: Routes, lines: Lines) -> Comparison:
    """Compare what the blocks are checked against, and reject a mode that is wrong."""
    if routes.job.verify != "probe":
        return _of_mode(routes, lines, routes.family)
    reverse = _of_mode(routes, lines, "reverse")
    routes.agrees_to = reverse.agrees_to
    if reverse.state != "contradicted" and math.isfinite(reverse.derivative):
        return reverse
    if math.isfinite(reverse.error) and not math.isfinite(reverse.derivative):
        routes.notes.append(_SINGULAR)
    forward = _of_mode(routes, lines, "forward")
    if reverse.state == "contradicted" and forward.state == "agree":
        routes.reject(
            "reverse",
            f"reverse mode is wrong for this function: {reverse}. The differences agree with "
            "forward mode: use strategy=forward-mode or strategy=forward-loop. "
            "verify.differences=false goes by reverse mode, for functions that stop gradients on "
            "purpose",
        )
    elif forward.state == "contradicted" and reverse.state != "contradicted":
        routes.reject("forward", f"forward mode is wrong for this function: {forward}")
    is_of_forward = forward.state == "agree" or routes.family == "forward"
    return forward if is_of_forward else reverse


def _of_mode(routes: Routes, lines: Lines, mode: Mode) -> Comparison:
    order = 2 if routes.evaluations.is_second_order else 1
    try:
        found = _settled(routes, lines, lines.claim(mode))
        if found.state != "contradicted" and lines.is_wider:
            # The derivative in double precision shows smaller errors, where there is one.
            with suppress(Exception):
                wide = _settled(routes, lines, lines.claim(mode, is_wide=True))
                found = found if wide.state == "inconclusive" else wide
    except Exception as error:
        found = _failed(order, error)
    return replace(found, mode=mode)


def _failed(order: int, error: Exception) -> Comparison:
    reason = f"the function, or its derivative, fails near this point: {one_line(error)}"
    return Comparison("inconclusive", order, reason=reason)


def _settled(routes: Routes, lines: Lines, claim: Claim) -> Comparison:
    """Compare along one line; where that does not agree, along another one as well."""
    tolerance = routes.job.tolerance or claim.epsilon**0.5
    hides = False

    def compared(number: int, steps: int, exponent: float) -> Comparison:
        nonlocal hides
        measured = lines.measure(claim, number, steps, exponent, tolerance)
        hides = measured.hides
        found = _judged(measured, claim.order, tolerance, claim.epsilon)
        return replace(found, evaluations=routes.evaluations.count)

    def settled(number: int, exponent: float) -> Comparison:
        # One step suffices where the derivative is met: that is no coincidence.
        first = compared(number, 1, exponent)
        if first.agrees_to is not None and _deviation(first) <= tolerance * first.scale:
            return first
        first = compared(number, _STEPS, exponent)
        if first.state == "agree":
            return first
        second = compared(number + 1, _STEPS, _OTHER.get(first.reason, _LARGE))
        if "contradicted" in (first.state, second.state) and first.state != second.state:
            # A single line shows no error yet, and along one an error may cancel.
            third = compared(number + 2, _STEPS, _THIRD)
            if third.state == "contradicted":
                return third
        is_open = first.state == "inconclusive" and first.reason != _DEVIATES
        is_better = is_open or (first.state != "inconclusive" and second.error <= first.error)
        if first.state == second.state or (second.state == "agree" and is_better):
            return second
        reason = first.reason or second.reason or _UNSETTLED
        return replace(second, state="inconclusive", reason=reason, agrees_to=None)

    found = settled(0, _FIRST)
    if found.state != "contradicted" and hides:
        # Entries of little effect hide beside others.
        hidden = settled(-3, _LARGE)
        is_deviating = hidden.state == "contradicted" or hidden.reason == _DEVIATES
        found = hidden if is_deviating else found
    if found.state == "contradicted":
        evaluations = routes.evaluations
        stops = stopped_gradients(lambda: evaluations.outputs(evaluations.point))
        found = replace(found, stops=stops)
    return found


def _judged(measured: Measured, order: int, tolerance: float, epsilon: float) -> Comparison:
    scale = measured.scale
    judged = Comparison(
        "inconclusive",
        order,
        derivative=measured.slope,
        difference=measured.value,
        error=measured.error,
        scale=scale,
        step=measured.step,
    )
    if not math.isfinite(measured.slope):
        return replace(judged, reason="the derivative is not finite at this point")
    if not math.isfinite(measured.error):
        return replace(judged, reason="the function is not finite near this point")
    scale = max(scale, abs(measured.value))
    judged = replace(judged, scale=scale)
    deviation = _deviation(judged)
    # Where the two do not meet, the scale may be that of a wrong derivative.
    smaller = scale if deviation <= tolerance * scale else min(scale, abs(measured.value))
    # A derivative that is zero only up to rounding has the error of the value's rounding.
    floor = 16 * epsilon * measured.size
    if max(abs(measured.slope), abs(measured.value)) <= floor:
        return replace(judged, state="agree", agrees_to=0.0)
    if measured.error > max(_CONVERGED * smaller, 10 * measured.rounding):
        return replace(judged, reason=_NOT_CONVERGED)
    if deviation > BEYOND * measured.error + 3 * tolerance * scale + floor:
        return replace(judged, state="contradicted")
    if deviation > max(tolerance * scale, 3 * measured.error) + floor:
        return replace(judged, reason=_DEVIATES)
    # Where rounding would hide a deviation, nothing is shown.
    is_hidden = deviation > max(_CONVERGED, tolerance) * scale
    if is_hidden or measured.error > _CONVERGED * scale > 0:
        return replace(judged, reason=_ROUNDING)
    if measured.error > max(max(_ACCURATE, tolerance) * scale, 10 * measured.rounding):
        return replace(judged, reason=_NOT_CONVERGED)
    return replace(judged, state="agree", agrees_to=deviation / scale if scale else 0.0)


def _deviation(comparison: Comparison) -> float:
    return abs(comparison.derivative - comparison.difference)
