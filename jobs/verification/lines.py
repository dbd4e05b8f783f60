"""Random lines through the point of a function, along which derivatives are measured.

What contributes little must not hide beside what contributes much. So each row is weighted by the
inverse of its derivative along the line, and each entry of the point is moved the less, the more it
contributes to the weighted sum, down to where the rounding of the values would be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.verification.evaluation import double_of, is_inexact
from jobs.verification.extrapolation import Extrapolation
from jobs.verification.numerics import root_mean_square, signed_vector
from jobs.verification.routes import (
    Mode,
    Routes,
    differences_along,
    real_vector,
    tensors_of,
)

# Rounding of the values may be this share of a derivative: of the tolerance in general, and of the
# derivative itself where entries of little effect are moved.
_ROUNDING = 1 / 30
_ROUNDING_OF_HIDDEN = 1e-4
# An error of this share in the entry of the smallest effect should be seen.
_VISIBLE = 0.1
# How many directions are drawn, of which the derivative along one is to cancel least.
_DRAWS = 8


@dataclass(frozen=True)
class Claim:
    """What a route says of the derivative of <u, value> along any direction.

    Attributes:
        order: 1 for the derivative of the function, 2 for that of its gradient.
        cotangent: u, float64 of shape (values,).
        terms: Takes a direction; returns terms whose sum is the derivative.
        entries: The derivative by each entry of the point, float64, by reverse mode; empty if
            unknown.
        epsilon: The unit of rounding that the route computes with.
    """

    order: int
    cotangent: Tensor
    terms: Callable[[Sequence[Tensor]], Tensor]
    entries: Tensor
    epsilon: float


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
        hides: Whether an error in the entries of the smallest effect would not be seen.
    """

    slope: float
    scale: float
    value: float
    error: float
    rounding: float
    step: float
    size: float
    hides: bool


class Lines:
    """Random lines through the point of a job, each evaluated once for all claims.

    Attributes:
        is_wider: Whether they are evaluated in a wider dtype than that of the job.
    """

    def __init__(self, routes: Routes, exponent: float) -> None:
        """Evaluate the function at the point, and take differences along a first line.

        Args:
            routes: The routes to its derivative.
            exponent: The power of ε that is the first step, relative to each input tensor.

        Raises:
            JobError: The function returns another value than before.
        """
        self._routes = routes
        self._evaluations = routes.evaluations
        self._lines: dict[tuple[int, int], tuple[list[Tensor], Extrapolation]] = {}
        u = real_vector([each for each in routes.cotangent() if is_inexact(each)])
        value, gradient = None, []
        # Torch or the function may raise anything where there is no derivative by this route.
        with suppress(Exception):
            value, gradient, _ = routes.pull(routes.split(u))
        self._evaluations.require_repeatable(value, gradient)
        self._centre = self._evaluations.widest()
        self.is_wider = self._centre.point is not self._evaluations.point
        # Entries of the function come before those of its gradient.
        self._skipped = self._evaluations.entries_before_the_gradient
        self._weights = torch.cat([torch.ones(self._skipped, dtype=u.dtype), u])
        self._entries = torch.zeros(0, dtype=u.dtype)
        self._first: list[Claim] = []
        if value is not None:
            self._first.append(self.claim("reverse"))
        if self._skipped:
            self._first.append(self.claim_of_gradient())
        line = self._line(0, 1, exponent)[1]
        self._evaluations.require_no_past()
        parts = (slice(0, self._skipped), slice(self._skipped, None))
        self._weights = torch.cat([self._balanced(line, part) for part in parts])

    def claim_of_gradient(self) -> Claim:
        """Return what the gradient says of the function, for second order."""
        weights = self._weights.clone()
        weights[self._skipped :] = 0
        values = self._centre.values
        gradient = [
            # Of many points each has a value and a gradient of its own.
            torch.tensordot(torch.diag(weights[: self._skipped]).to(each), each, dims=1)
            if self._evaluations.points is not None
            else weights[0].to(each) * each
            for each in values[-len(self._centre.point) :]
        ]
        return _by_pullback(1, weights, gradient, self._centre.epsilon)

    def claim(self, mode: Mode, *, is_wide: bool = False) -> Claim:
        """Return what a mode says of the matrix.

        Args:
            mode: The mode.
            is_wide: Whether it is asked in the dtype of the lines, not in that of the job.

        Raises:
            Exception: What was raised where the function has no derivative by this mode.
        """
        order = 2 if self._skipped else 1
        weights = self._weights.clone()
        weights[: self._skipped] = 0
        u = weights[self._skipped :]
        epsilon = self._centre.epsilon if is_wide else self._evaluations.epsilon
        centre = self._centre if is_wide else None
        outputs = list(self._routes.outputs)
        if is_wide:
            outputs = [y.to(double_of(y)) if is_inexact(y) else y for y in outputs]
        if mode == "reverse":
            pulled = self._routes.pull(tensors_of(u, outputs), centre)[-1]
            by_pullback = _by_pullback(order, weights, pulled, epsilon)
            self._entries = by_pullback.entries
            return by_pullback

        def terms(direction: Sequence[Tensor]) -> Tensor:
            point = self._centre.point if is_wide else self._evaluations.point
            tangent = [v.to(x.dtype) for v, x in zip(direction, point, strict=True)]
            image = self._routes.push(tangent, "forward-loop", centre)
            return u * real_vector([each for each in image if is_inexact(each)])

        # Both modes are measured along the same lines.
        return Claim(order, weights, terms, self._entries, epsilon)

    def measure(
        self, claim: Claim, number: int, steps: int, exponent: float, tolerance: float
    ) -> Measured:
        """Measure along one line.

        Args:
            claim: What is measured.
            number: The number of the line; negative for one along which the entries of the
                smallest effect on the claim are moved.
            steps: How many steps are taken at least.
            exponent: The power of ε that is the first step, of a line that is new.
            tolerance: The relative error to which the claim is known.
        """
        direction, line = self._line(number, steps, exponent, claim)
        terms = claim.terms(direction)
        slope = float(terms.sum())
        value = float(claim.cotangent @ line.value)
        # The cotangent has random signs, so that errors of the entries add up as squares.
        error, rounding, size = (
            float(torch.linalg.vector_norm(claim.cotangent * each).nan_to_num(torch.inf))
            for each in (line.error, line.rounding, line.centre)
        )
        scale = max(abs(slope), float(torch.linalg.vector_norm(terms)))
        parts = (claim.entries * real_vector(direction)).abs() if len(claim.entries) else terms
        hides = len(claim.entries) > 0 and _hides(parts, tolerance)
        return Measured(slope, scale, value, error, rounding, line.step, size, hides)

    def _line(
        self, number: int, steps: int, exponent: float, claim: Claim | None = None
    ) -> tuple[list[Tensor], Extrapolation]:
        is_of_hidden = number < 0 and claim is not None
        key = (number, claim.order if is_of_hidden and claim is not None else 0)
        if key not in self._lines:
            step = self._centre.epsilon**exponent
            if is_of_hidden and claim is not None:
                direction = self._direction(number, [claim], step, _ROUNDING_OF_HIDDEN)
            else:
                share = _ROUNDING * self._centre.epsilon**0.5
                direction = self._direction(number, self._first, step, share)
            line = differences_along(self._evaluations, direction, exponent, steps)
            self._lines[key] = direction, line
        direction, line = self._lines[key]
        while line.taken < steps:
            line.refine()
        return direction, line

    def _direction(
        self, number: int, claims: Sequence[Claim], step: float, share: float
    ) -> list[Tensor]:
        """Return a random direction along which entries of the point have about equal effect.

        Args:
            number: The number of the line.
            claims: What says how large the effects are.
            step: The first step.
            share: How large the rounding of the differences may be relative to the derivative.
        """
        point = self._centre.point
        epsilon = self._centre.epsilon
        values = real_vector(self._centre.values)
        sizes = real_vector([_sizes(tensor) for tensor in point])
        moved = sizes
        for claim in claims:
            effects = (claim.entries * sizes).abs()
            rounding = epsilon * float(torch.linalg.vector_norm(claim.cotangent * values))
            least = rounding / step / share / max(1, int((effects > 0).sum())) ** 0.5
            # The steps have to be above the rounding of the point, too.
            reduced = sizes * torch.clamp(least / effects, min=min(1.0, epsilon / step / share))
            moved = torch.where(effects > least, torch.minimum(moved, reduced), moved)
        generator = torch.Generator().manual_seed(self._routes.seed + number % 2**32)
        drawn = [self._signed(moved, generator) for _ in range(_DRAWS if claims else 1)]
        best = max(
            drawn, key=lambda each: min((_left(c.entries * each) for c in claims), default=0)
        )
        return tensors_of(best, point)

    def _signed(self, moved: Tensor, generator: torch.Generator) -> Tensor:
        return moved * real_vector(
            [signed_vector(each, generator, real=False) for each in self._centre.point]
        )

    def _balanced(self, line: Extrapolation, part: slice) -> Tensor:
        """Return weights with which a part of the rows has about equal derivatives along a line.

        They are as they were where no row hides beside others. Rows whose derivative is within the
        rounding of their values count as much as that of their values.
        """
        weights = self._weights[part]
        tolerance = self._centre.epsilon**0.5
        value, error, rounding = (
            each[part].nan_to_num(0.0) for each in (line.value.abs(), line.error, line.rounding)
        )
        error = torch.where(torch.isfinite(error), error, 0.0)
        sizes = torch.maximum(torch.maximum(value, error), rounding / tolerance)
        if bool(sizes.any()):
            sizes = torch.where(sizes > 0, sizes, sizes[sizes > 0].min())
        if not _hides(weights * sizes, tolerance):
            return weights
        # Neither a weight may underflow in the dtype of the outputs, nor its square in float64.
        tiny = max(torch.finfo(y.dtype).tiny for y in self._routes.outputs if is_inexact(y))
        sizes = sizes.clamp(min=float(sizes.max()) * max(tiny**0.5, 1e-100))
        return weights * float(sizes.min()) / sizes


def _sizes(tensor: Tensor) -> Tensor:
    size = torch.full_like(tensor, root_mean_square([tensor]) or 1.0)
    return torch.complex(size.real, size.real) if size.is_complex() else size


def _left(terms: Tensor) -> float:
    """Return what is left of terms that cancel, relative to their size."""
    size = float(torch.linalg.vector_norm(terms))
    return abs(float(terms.sum())) / size if size else 0.0


def _hides(parts: Tensor, tolerance: float) -> bool:
    """Return whether an error in the smallest part is within the tolerance of all together."""
    parts = parts.abs()
    if not len(parts) or not bool(torch.isfinite(parts).all()):
        return False
    return _VISIBLE * float(parts.min()) < tolerance * float(torch.linalg.vector_norm(parts))


def _by_pullback(order: int, cotangent: Tensor, pulled: Sequence[Tensor], epsilon: float) -> Claim:
    flat = real_vector(pulled)
    return Claim(order, cotangent, lambda direction: flat * real_vector(direction), flat, epsilon)
