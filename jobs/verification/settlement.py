"""Settle whether differences of the function agree with a derivative, along few lines.

Entries of the point whose effect is so small that an error in them passes along the first line are
moved once more, by themselves. What is seen along neither is counted.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from jobs.verification.claims import Claim, Group, Measured
from jobs.verification.comparison import (
    DEVIATES,
    NOT_CONVERGED,
    Comparison,
    deviation_of,
    judged,
    rounding_of,
)
from jobs.verification.lines import Lines
from jobs.verification.routes import Routes
from jobs.verification.stopped_gradients import stopped_gradients

_UNSETTLED = "two directions do not tell the same"
# The first step is ε to a power, of the size of each input tensor. ε^(1/3) would balance the
# truncation of one step with the rounding of the values; functions have more noise than that. Where
# a line does not agree, another one has steps that avoid the reason: small ones for kinks and fast
# changes, large ones for rounding, and for noise, which seems to contradict small steps. Entries of
# little effect need large steps to be seen.
FIRST = 0.3
_LARGE = 0.2
_OF_ALL = FIRST, 0.0, 0.25
_OF_HIDDEN = 0.125, 0.25, 0.125
_OTHER = {NOT_CONVERGED: 0.6, DEVIATES: 0.4}
_STEPS = 2
# An error of this share in an entry should be seen, and its rounding be three times smaller.
_VISIBLE = 0.1
_ERRORS = 3.0
# Entries of little effect are compared to this share of them all, or less where they are many.
_ALLOWED = 1e-3


def settled(routes: Routes, lines: Lines, claim: Claim) -> Comparison:
    """Compare a claim along one line; where that does not agree, along others as well.

    Args:
        routes: The routes to the derivative.
        lines: The lines.
        claim: What one of the routes says of the derivative.
    """
    settlement = _Settlement(routes, lines, claim)
    found = settlement.along(Group(0), tolerance_of(routes, claim))
    if found.state != "contradicted":
        found = settlement.with_hidden(found)
    evaluations = routes.evaluations
    found = replace(found, evaluations=evaluations.count)
    if found.state == "contradicted":
        stops = stopped_gradients(lambda: evaluations.outputs(evaluations.point))
        found = replace(found, stops=stops)
    return found


def tolerance_of(routes: Routes, claim: Claim) -> float:
    """Return the relative error to which a claim is known."""
    return routes.job.tolerance or claim.epsilon**0.5


class _Settlement:
    """One claim, and what was measured of it last."""

    def __init__(self, routes: Routes, lines: Lines, claim: Claim) -> None:
        self._routes = routes
        self._lines = lines
        self._claim = claim
        self._measured: Measured
        self._is_of_hidden = False

    def compared(self, group: Group, steps: int, exponent: float, tolerance: float) -> Comparison:
        """Compare along one line."""
        self._measured = self._lines.measure(self._claim, group, steps, exponent)
        self._is_of_hidden = group.members is not None
        return judged(self._measured, self._claim, tolerance, is_of_hidden=self._is_of_hidden)

    def is_met(self, found: Comparison, tolerance: float) -> bool:
        """Return whether a derivative is met to the tolerance, which is no coincidence."""
        is_near = deviation_of(found) <= self._allowed(found, tolerance)
        return found.agrees_to is not None and is_near

    def _allowed(self, found: Comparison, tolerance: float) -> float:
        """Return how far a derivative that is met may deviate along the last line.

        The effects of entries of little effect are about equal. How much of their sum is left is
        chance, and where it is much, an error of one of them must not pass for that.
        """
        effects = float(torch.linalg.vector_norm(self._measured.parts))
        return tolerance * (min(found.scale, effects) if self._is_of_hidden else found.scale)

    def along(self, group: Group, tolerance: float) -> Comparison:
        """Compare along a first line, and along others where that does not agree."""
        is_of_all = group.members is None
        exponent, other, last = _OF_ALL if is_of_all else _OF_HIDDEN
        first = self.compared(group, 1, exponent, tolerance)
        if self.is_met(first, tolerance):
            return first
        if not is_of_all and first.state == "agree":
            # Half of the step shows more: what the function bends, and not what rounding hides.
            return self.compared(group, _STEPS, exponent, tolerance)
        if not is_of_all:
            second = self.compared(group.other(1), 1, other, tolerance)
            if self.is_met(second, tolerance):
                return second
        first = self.compared(group, _STEPS, exponent, tolerance)
        if first.state == "agree":
            return first
        other = other or _OTHER.get(first.reason, _LARGE)
        second = self.compared(group.other(1), _STEPS, other, tolerance)
        if "contradicted" in (first.state, second.state) and first.state != second.state:
            # A single line shows no error yet, and along one an error may cancel.
            third = self.compared(group.other(2), _STEPS, last, tolerance)
            if third.state == "contradicted":
                return third
        is_open = first.state == "inconclusive" and first.reason != DEVIATES
        is_better = is_open or (first.state != "inconclusive" and second.error <= first.error)
        if first.state == second.state or (second.state == "agree" and is_better):
            return second
        reason = first.reason or second.reason or _UNSETTLED
        return replace(second, state="inconclusive", reason=reason, agrees_to=None)

    def with_hidden(self, found: Comparison) -> Comparison:
        """Compare along lines on which only those entries move whose errors have passed so far."""
        entries = self._claim.entries
        tolerance = tolerance_of(self._routes, self._claim)
        members = self._passing(found, tolerance)
        if not bool(members.any()):
            return found
        small = members & (entries != 0)
        share = _VISIBLE / _ERRORS / max(1, int(small.sum())) ** 0.5
        tolerance = max(tolerance, min(_ALLOWED, share))
        hidden = self.along(Group(-3, members, tolerance / _ERRORS), tolerance)
        if hidden.state == "contradicted" or hidden.reason == DEVIATES:
            return hidden
        unseen = small & self._passing(hidden, tolerance) if hidden.state == "agree" else small
        if bool(unseen.any()):
            unseen &= ~self._lines.is_rounding(self._claim, unseen)
        return replace(found, unseen=int(unseen.sum()), hidden_by=hidden.reason)

    def _passing(self, found: Comparison, tolerance: float) -> Tensor:
        """Return the entries of the point an error of which the last comparison lets pass."""
        parts = self._measured.parts
        if not math.isfinite(found.error) or not bool(torch.isfinite(parts).all()):
            return torch.zeros_like(parts, dtype=torch.bool)
        allowed = self._allowed(found, tolerance)
        if not self.is_met(found, tolerance):
            allowed = max(allowed, _ERRORS * found.error)
        return _VISIBLE * parts < allowed + rounding_of(self._measured, self._claim)
