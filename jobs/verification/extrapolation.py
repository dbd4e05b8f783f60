"""Extrapolate finite differences to the step 0, with an estimate of their error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Noise is random: along two steps it changes values equally but for a factor like this.
_ALIKE = 10


class Extrapolation:
    """The derivative of a vector along a line, by central differences (Ridders 1982).

    Each step is half of the one before. Where the function has a kink at 0 itself, central
    differences converge to the mean of its two slopes, which is no derivative: what the slopes on
    both sides differ by is part of the error, and so is the rounding of the values.

    Attributes:
        centre: The values at the point.
        value: The extrapolated derivative, float64 of shape (entries,).
        error: Its estimated error, likewise; infinite where the function is not finite.
        rounding: The part of the error that is rounding of the values.
        step: The smallest step.
        taken: How many steps were taken.
    """

    def __init__(
        self,
        function: Callable[[float], Tensor],
        centre: Tensor,
        first: float,
        steps: int,
        *,
        epsilon: float,
    ) -> None:
        """Take the first steps.

        Args:
            function: Takes a step from the point; returns the values there, float64 of shape
                (entries,).
            centre: The values at the point.
            first: The largest step.
            steps: How many steps are taken; after one, the error is that of a kink and of rounding
                alone.
            epsilon: The unit of rounding of the values.
        """
        self._function = function
        self.centre = centre
        self._first = first
        self._epsilon = epsilon
        self.taken = 0
        self._row: list[Tensor] = []
        self._largest = centre.abs()
        self._change = torch.zeros_like(centre)
        self._bend = torch.zeros_like(centre)
        self._kink = torch.zeros_like(centre)
        self._difference = torch.zeros_like(centre)
        self.value = torch.full_like(centre, torch.nan)
        for _ in range(steps):
            self.refine()

    def refine(self) -> None:
        """Take one more step on either side of the point."""
        self.step = h = self._first / 2**self.taken
        self.taken += 1
        above, below = self._function(h), self._function(-h)
        self._change = self._changes(above, below)
        self._largest = torch.maximum(self._largest, torch.maximum(above.abs(), below.abs()))
        # A bend is proportional to the step where the function is smooth, and constant at a kink.
        bend = (above - 2 * self.centre + below) / h
        self._kink, self._bend = (2 * bend - self._bend).abs(), bend
        row = [(above - below) / (2 * h)]
        if not self._row:
            self.value = row[0]
        elif len(self._row) == 1:
            self._difference = torch.full_like(row[0], torch.inf)
        for order, previous in enumerate(self._row):
            factor = 4.0 ** (order + 1)
            row.append((factor * row[order] - previous) / (factor - 1))
            difference = torch.maximum((row[-1] - row[-2]).abs(), (row[-1] - previous).abs())
            is_better = difference <= self._difference
            self.value = torch.where(is_better, row[-1], self.value)
            self._difference = torch.where(is_better, difference, self._difference)
        self._row = row
        self.rounding = self._epsilon * self._largest / h
        error = self._difference + self._kink + self.rounding
        self.error = torch.where(torch.isfinite(error), error, torch.inf)

    def noise(self, step: float) -> Tensor:
        """Return how much of a derivative is noise, where values change by noise alone.

        Those change along a much smaller step about as much as along the last one. The derivative
        of a value that rounding alone keeps from being constant is an example.

        Args:
            step: The smaller step.

        Returns:
            The change of such values, divided by the last step; zero for others. Shape (entries,).
        """
        smaller = self._changes(self._function(step), self._function(-step))
        is_noise = self._change <= _ALIKE * smaller
        return torch.where(is_noise, self._change / self.step, 0.0)

    def _changes(self, above: Tensor, below: Tensor) -> Tensor:
        return torch.maximum((above - self.centre).abs(), (below - self.centre).abs())
