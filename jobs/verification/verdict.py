"""Say what a job has verified, and what contradicts it; the rule itself is that of `outputs`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobs.errors import (
    ContradictedError,
    JobError,
    NotVerifiedError,
    PartlyVerifiedError,
)
from jobs.job import Job
from jobs.verification.comparison import ACCURATE, Comparison, deviation_of
from outputs import Verdict, VerificationState, figures_verdict

_ERRORS = {
    VerificationState.PARTLY: PartlyVerifiedError,
    VerificationState.NOT_VERIFIED: NotVerifiedError,
    VerificationState.CONTRADICTED: ContradictedError,
}


def verdict(
    job: Job,
    figures: Mapping[str, Any],
    comparisons: Sequence[Comparison],
    lines: int,
    axis: str,
) -> Verdict:
    """Return what is known of the numbers of a job once its last block is checked.

    Args:
        job: The job.
        figures: The figures of its check.
        comparisons: How its derivative compares with differences.
        lines: The number of lines that the file holds; 0 for a matrix without entries.
        axis: Whether these are ``rows`` or ``columns``.
    """
    if seen := contradiction(job, comparisons):
        return Verdict(VerificationState.CONTRADICTED, seen)
    found = figures_verdict(figures, difference_figures(comparisons), lines, axis)
    return with_left_out_differences(job, found)


def with_left_out_differences(job: Job, found: Verdict) -> Verdict:
    """Return a verdict that names the option if it left the differences out."""
    if job.differences or job.verify == "off":
        return found
    return replace(found, reason=f"{found.reason}; no differences: verify.differences=false")


def contradiction(job: Job, comparisons: Sequence[Comparison], *, with_advice: bool = True) -> str:
    """Return what contradicts the derivative of a job's function, and what to do; else nothing."""
    seen = next((each for each in comparisons if each.state == "contradicted"), None)
    if seen is None:
        return ""
    text = f"function={job.function.reference}: {seen}"
    if not with_advice:
        return text
    return (
        f"{text}: autograd does not see all that the "
        "function does, or a custom derivative is wrong. Look for tensors that are detached, "
        "values that leave torch, caches, and custom backward functions. "
        f"{_as_exact_as(seen)}verify.differences=false writes what autograd gives, for functions "
        "that stop gradients on purpose"
    )


def _as_exact_as(seen: Comparison) -> str:
    """Return what to do where a deviation is so small that it may be the function's own error.

    The tolerance that it names leaves room for directions that deviate by more.
    """
    share = deviation_of(seen) / seen.scale if seen.scale else math.inf
    if not 0 < share < ACCURATE:
        return ""
    return (
        f"The two differ by {share:.1e} of their size: where the function itself is no more exact "
        "(an adaptive solver, whose steps autograd takes for constants, or an iteration that "
        f"stops early), verify.tolerance={10 * share:.0e} accepts that. "
    )


def difference_figures(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return what the result file keeps of comparisons with differences."""
    return [each.figures() | {"summary": str(each)} for each in comparisons]


def shortfall(required: bool, found: Verdict, path: str) -> JobError | None:
    """Return the error with which a job ends although its result is finished, or None.

    A contradicted result always ends its job so.

    Args:
        required: The option `verify.required`: each result does that is not verified.
        found: The verdict on its finished result.
        path: The path of the result.
    """
    error = _ERRORS.get(found.state)
    if error is None or not (required or error is ContradictedError):
        return None
    option = "verify.required=true: " if required else ""
    return error(
        f"{option}{path} is {found}; the file is kept, and overwrite=true computes it again"
    )
