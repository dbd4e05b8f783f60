"""Extrapolate finite differences to the step 0, with an estimate of their error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Extrapolation:
    """A derivative by central differences.

    Attributes:
        value: The extrapolated derivative.
        error: Its estimated error; infinite where the function is not finite.
        step: The smallest step.
        evaluations: How often the function was evaluated, besides at 0.
        size: The largest sum of the absolute values of its terms, which rounding is relative to.
    """

    value: float
    error: float
    step: float
    evaluations: int
    size: float = 0.0


def extrapolated(function: Callable[[float], Tensor], step: float, steps: int) -> Extrapolation:
    """Extrapolate central differences of a function at 0 to the step 0 (Ridders 1982).

    Where the function has a kink at 0 itself, central differences converge to the mean of its two
    slopes, which is no derivative: what the slopes on both sides differ by is part of the error.

    Args:
        function: Takes a step from the point; returns the terms of the value there, in float64.
        step: The largest step.
        steps: How many steps there are, at least 2, each half of the one before.
    """
    best = Extrapolation(math.nan, math.inf, step / 2 ** (steps - 1), 2 * steps)
    centre = function(0.0)
    largest = float(centre.abs().sum())
    before: list[float] = []
    bends: list[float] = []
    for number in range(steps):
        h = step / 2**number
        above, below = function(h), function(-h)
        largest = max(largest, float(above.abs().sum()), float(below.abs().sum()))
        bends.append(float((above - 2 * centre + below).abs().sum()) / h)
        row = [float((above - below).sum()) / (2 * h)]
        for order, previous in enumerate(before):
            factor = 4.0 ** (order + 1)
            row.append((factor * row[order] - previous) / (factor - 1))
            error = max(abs(row[-1] - row[-2]), abs(row[-1] - previous))
            if error <= best.error and math.isfinite(error):
                best = replace(best, value=row[-1], error=error)
        before = row
    # A bend is proportional to the step where the function is smooth, and constant at a kink.
    kink = abs(2 * bends[-1] - bends[-2])
    return replace(best, error=best.error + kink, size=largest)
