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
from contextlib import suppress
from dataclasses import replace

from jobs.errors import JobError
from jobs.functions.failures import explaining_failures
from jobs.functions.tracebacks import one_line
from jobs.job import Job
from jobs.records.announcements import DIFFERENCES, trying_differences
from jobs.verification.comparison import Comparison
from jobs.verification.lines import Lines
from jobs.verification.routes import Mode, Routes
from jobs.verification.settlement import FIRST, settled, tolerance_of

_SINGULAR = (
    "reverse mode gives no finite numbers at this point, near which the function is finite: one of "
    "its operations has a derivative that is singular here, as the norm of a vector of zeros has. "
    "Move the point, or write the function without that operation (x.square().sum() in place of "
    "x.norm() ** 2)"
)
_UNSTABLE = (
    "the derivative in the precision of the job differs by {share:.1e} from that in double "
    "precision, with which they agree: the function is ill-conditioned, or another one in double "
    "precision"
)
_UNSEEN = (
    "{count} of the {all} entries of the point have so little effect on {what} that differences do "
    "not show it: {reason}"
)


def differences_of_job(job: Job, routes: Routes) -> tuple[Comparison, ...]:
    """Compare as `compare_with_differences` does, unless the options or an earlier death forbid it.

    Raises:
        JobError: The function returns a different value on each call.
    """
    if not job.differences:
        return ()
    if DIFFERENCES in job.excluded:
        return (Comparison("inconclusive", 1, reason=job.excluded[DIFFERENCES]),)
    trying_differences(job)
    with explaining_failures(job.function):
        return compare_with_differences(routes)


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
        lines = Lines(routes, FIRST)
        gradient = (settled(routes, lines, lines.claim_of_gradient()),) if is_second_order else ()
    except JobError:
        raise
    # A function may raise anything away from its point; what is wrong at the point, the job tells.
    except Exception as error:
        orders = (1, 2) if is_second_order else (1,)
        found = tuple(_failed(each, error) for each in orders)
    else:
        found = (*gradient, _of_the_matrix(routes, lines))
    # Values that agree with the derivative of the blocks are those of one function.
    if not routes.is_repeated and any(each.state != "agree" for each in found):
        routes.require_repeatable()
    return tuple(_with_unseen(each, routes) for each in found)


def _with_unseen(found: Comparison, routes: Routes) -> Comparison:
    """Return a comparison that says nothing of some entries of the point as one that is open."""
    if found.state != "agree" or not found.unseen:
        return found
    reason = _UNSEEN.format(
        count=found.unseen,
        all=sum(each.numel() for each in routes.evaluations.point),
        what="the function" if found.order == 1 else "its gradient",
        reason=found.hidden_by or "the rounding of the values hides it",
    )
    return replace(found, state="inconclusive", reason=reason)


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
    wide, share = None, 0.0
    if lines.is_wider:
        # The derivative in double precision shows smaller errors, where there is one.
        with suppress(Exception):
            claim = lines.claim(mode, is_wide=True)
            wide = settled(routes, lines, claim)
            given = lines.claim(mode)
            share = lines.deviation(given, claim)
            if wide.state == "contradicted" or share <= tolerance_of(routes, given):
                return replace(wide, mode=mode)
    try:
        found = settled(routes, lines, lines.claim(mode))
    except Exception as error:
        found = _failed(2 if routes.evaluations.is_second_order else 1, error)
    if wide is not None and wide.state == "agree" and found.state != "contradicted":
        found = replace(wide, state="inconclusive", reason=_UNSTABLE.format(share=share))
    return replace(found, mode=mode)


def _failed(order: int, error: Exception) -> Comparison:
    reason = f"the function, or its derivative, fails near this point: {one_line(error)}"
    return Comparison("inconclusive", order, reason=reason)
