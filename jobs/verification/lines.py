"""Random lines through the point of a function, along which derivatives are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.verification.evaluation import is_inexact
from jobs.verification.extrapolation import Extrapolation
from jobs.verification.numerics import root_mean_square, signed_vector
from jobs.verification.routes import (
    Mode,
    Routes,
    differences_along,
    real_vector,
)


@dataclass(frozen=True)
class Claim:
    """What a route says of the derivative of <u, value> along any direction.

    Attributes:
        order: 1 for the derivative of the function, 2 for that of its gradient.
        cotangent: u, float64 of shape (values,).
        terms: Takes a direction; returns terms whose sum is the derivative.
        flat: For each input tensor, whether its derivative is exactly zero; empty if unknown.
    """

    order: int
    cotangent: Tensor
    terms: Callable[[Sequence[Tensor]], Tensor]
    flat: tuple[bool, ...] = ()


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
    """

    slope: float
    scale: float
    value: float
    error: float
    rounding: float
    step: float
    size: float


class Lines:
    """Random lines through the point of a job, each evaluated once for all claims."""

    def __init__(self, routes: Routes) -> None:
        """Evaluate the function at the point, together with its pullback.

        Raises:
            JobError: It returns another value than before.
        """
        self._routes = routes
        self._evaluations = routes.evaluations
        self._u = routes.cotangent()
        self._pulled: list[Tensor] | Exception
        value, gradient = None, []
        try:
            value, gradient, self._pulled = routes.pull(self._u)
        # Torch or the function may raise anything where there is no derivative by this route.
        except Exception as error:
            self._pulled = error
        self._evaluations.require_repeatable(value, gradient)
        self._known: dict[tuple[int, tuple[bool, ...]], tuple[list[Tensor], Extrapolation]] = {}

    def claim_of_gradient(self) -> Claim:
        """Return what the gradient says of the function, for second order."""
        _, *gradient = self._evaluations.centre()
        first = torch.zeros(1 + len(real_vector(gradient)), dtype=torch.float64)
        first[0] = 1.0
        return _by_pullback(1, first, gradient)

    def claim(self, mode: Mode) -> Claim:
        """Return what a mode says of the matrix.

        Raises:
            Exception: What was raised where the function has no derivative by this mode.
        """
        order = 2 if self._evaluations.is_second_order else 1
        u = real_vector([each for each in self._u if is_inexact(each)])
        cotangent = torch.cat([torch.zeros(1, dtype=u.dtype), u]) if order == 2 else u
        if mode == "reverse":
            if isinstance(self._pulled, Exception):
                raise self._pulled
            return _by_pullback(order, cotangent, self._pulled)

        def terms(direction: Sequence[Tensor]) -> Tensor:
            image = self._routes.push(direction, "forward-loop")
            return u * real_vector([each for each in image if is_inexact(each)])

        # Only a pullback shows which tensors seem to have no effect.
        pulled = [] if isinstance(self._pulled, Exception) else self._pulled
        return Claim(order, cotangent, terms, _flat(pulled))

    def measure(
        self,
        claim: Claim,
        number: int,
        steps: int,
        exponent: float,
        moved: tuple[bool, ...] = (),
    ) -> Measured:
        """Measure along one line.

        Args:
            claim: What is measured.
            number: The number of the line.
            steps: How many steps are taken at least.
            exponent: The power of ε that is the first step, relative to each input tensor, of a
                line that is new.
            moved: Which input tensors are moved; all if it is empty.
        """
        direction, line = self._line(number, steps, exponent, moved)
        while line.taken < steps:
            line.refine()
        terms = claim.terms(direction)
        slope = float(terms.sum())
        value = float(claim.cotangent @ line.value)
        # The cotangent has random signs, so that errors of the entries add up as squares.
        error, rounding, size = (
            float(torch.linalg.vector_norm(claim.cotangent * each).nan_to_num(torch.inf))
            for each in (line.error, line.rounding, line.centre)
        )
        scale = max(abs(slope), float(torch.linalg.vector_norm(terms)))
        return Measured(slope, scale, value, error, rounding, line.step, size)

    def _line(
        self, number: int, steps: int, exponent: float, moved: tuple[bool, ...]
    ) -> tuple[list[Tensor], Extrapolation]:
        if (number, moved) not in self._known:
            generator = torch.Generator().manual_seed(self._routes.seed + number)
            direction = [
                (root_mean_square([tensor]) or 1.0) * signed_vector(tensor, generator, real=False)
                for tensor in self._evaluations.point
            ]
            if moved:
                direction = [a * b for a, b in zip(direction, moved, strict=True)]
            line = differences_along(self._evaluations, direction, exponent, steps)
            self._known[number, moved] = direction, line
        return self._known[number, moved]


def _by_pullback(order: int, cotangent: Tensor, pulled: Sequence[Tensor]) -> Claim:
    flat = real_vector(pulled)
    return Claim(
        order,
        cotangent,
        lambda direction: flat * real_vector(direction),
        _flat(pulled),
    )


def _flat(pulled: Sequence[Tensor]) -> tuple[bool, ...]:
    return tuple(not bool(each.any()) for each in pulled)
