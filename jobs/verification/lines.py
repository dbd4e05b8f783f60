"""Random lines through the point of a function, along which derivatives are measured.

What contributes little must not hide beside what contributes much. So each row is weighted by the
inverse of its derivative along the line, and each entry of the point is moved the less, the more it
contributes to the weighted sum, down to where the rounding of the values would be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from jobs.verification.claims import Claim, Group, Measured, of_entries
from jobs.verification.evaluation import Centre, is_inexact
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
# An error of this share in the row of the smallest derivative should be seen.
_VISIBLE = 0.1
# A point that is moved by this power of ε has the same derivatives, and other rounding.
_NUDGE = 0.6
# By chance an entry that is rounding stays the same; rarely at so many points.
_NUDGES = 3
# How many directions are drawn, of which the derivative along one is to cancel least.
_DRAWS = 8


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
        routes.with_observed()
        u = real_vector([each for each in routes.cotangent() if is_inexact(each)])
        value, gradient = None, []
        # Torch or the function may raise anything where there is no derivative by this route.
        with suppress(Exception):
            value, gradient, _ = routes.pull(routes.split(u))
        if value is None or routes.is_repeated:
            routes.require_repeatable(value, gradient)
        else:
            # Values of another function near the point do not agree with this derivative.
            self._evaluations.know_centre(value, gradient)
        self._centre = routes.widest(u)
        self.is_wider = self._centre.point is not self._evaluations.point
        # Entries of the function come before those of its gradient.
        self._skipped = self._evaluations.entries_before_the_gradient
        self._weights = torch.cat([torch.ones(self._skipped, dtype=u.dtype), u])
        self._by_pullback: Claim | None = None
        self._first: list[Claim] = []
        if value is not None:
            self._first.append(self.claim("reverse"))
        if self._skipped:
            self._first.append(self.claim_of_gradient())
        line = self._line(Group(0), 1, exponent)[1]
        if self._evaluations.has_past and not routes.is_repeated:
            routes.require_repeatable()
        self._evaluations.require_no_past()
        parts = (slice(0, self._skipped), slice(self._skipped, None))
        noise = cache(lambda: self._noise_along(line))
        self._weights = torch.cat([self._balanced(line, noise, part) for part in parts])
        self._by_pullback = None  # it has the weights from before

    def claim_of_gradient(self) -> Claim:
        """Return what the gradient says of the function, for second order."""
        weights = self._weights.clone()
        weights[self._skipped :] = 0

        def gradient_of(values: Sequence[Tensor]) -> Tensor:
            gradient = values[-len(self._centre.point) :]
            if self._evaluations.points is None:
                return real_vector([weights[0].to(each) * each for each in gradient])
            # Of many points each has a value and a gradient of its own.
            chosen = torch.diag(weights[: self._skipped])
            return real_vector(
                [torch.tensordot(chosen.to(each), each, dims=1) for each in gradient]
            )

        return of_entries(
            1,
            weights,
            self._centre.epsilon,
            gradient_of(self._centre.values),
            lambda point: gradient_of(self._evaluations.near(point)),
        )

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
        outputs = self._routes.wide_outputs if is_wide else self._routes.outputs
        given = centre or Centre(self._evaluations.point, [], epsilon)
        if mode == "reverse":
            cotangent = tensors_of(u, outputs)

            def pulled(centre: Centre | None) -> Tensor:
                return real_vector(self._routes.pull(cotangent, centre)[-1])

            def entries_at(point: Sequence[Tensor]) -> Tensor:
                pairs = zip(point, given.point, strict=True)
                return pulled(replace(given, point=[x.to(like.dtype) for x, like in pairs]))

            entries = pulled(centre)
            self._by_pullback = of_entries(order, weights, epsilon, entries, entries_at)
            return self._by_pullback

        def terms(direction: Sequence[Tensor]) -> Tensor:
            point = self._centre.point if is_wide else self._evaluations.point
            tangent = [v.to(x.dtype) for v, x in zip(direction, point, strict=True)]
            image = self._routes.push(tangent, "forward-loop", centre)
            return u * real_vector([each for each in image if is_inexact(each)])

        # Both modes are measured along the same lines.
        if self._by_pullback is not None:
            return replace(self._by_pullback, terms=terms, epsilon=epsilon)
        unknown = torch.zeros(0, dtype=u.dtype)
        return Claim(order, weights, terms, epsilon, unknown, lambda _: unknown)

    def measure(self, claim: Claim, group: Group, steps: int, exponent: float) -> Measured:
        """Measure along one line.

        Args:
            claim: What is measured.
            group: Which line.
            steps: How many steps are taken at least.
            exponent: The power of ε that is the first step, of a line that is new.
        """
        direction, line = self._line(group, steps, exponent, claim)
        terms = claim.terms(direction)
        slope = float(terms.sum())
        value = float(claim.cotangent @ line.value)
        # The cotangent has random signs, so that errors of the entries add up as squares.
        error, rounding, size = (
            float(torch.linalg.vector_norm(claim.cotangent * each).nan_to_num(torch.inf))
            for each in (line.error, line.rounding, line.centre)
        )
        scale = max(abs(slope), float(torch.linalg.vector_norm(terms)))
        moved = real_vector(direction) if len(claim.entries) else claim.entries
        parts = (claim.entries * moved).abs()
        return Measured(slope, scale, value, error, rounding, line.step, size, parts)

    def deviation(self, claim: Claim, other: Claim) -> float:
        """Return by what share two claims differ along the first line, beyond rounding."""
        direction, line = self._line(Group(0), 1, 0.0)
        terms, expected = (each.terms(direction) for each in (claim, other))
        values = float(torch.linalg.vector_norm(claim.cotangent * line.centre))
        rounding = 16 * claim.epsilon * values
        difference = float(torch.linalg.vector_norm(terms - expected))
        size = float(torch.linalg.vector_norm(expected))
        return 0.0 if difference <= rounding else difference / (size or rounding)

    def is_rounding(self, claim: Claim, asked: Tensor) -> Tensor:
        """Return which entries of a claim are rounding of zero.

        Such entries change altogether if the point moves by very little; so does at least one of
        those of about their size in the same tensor, where one of them happens to stay. They are
        few multiples of ε, so that all of a tensor may stay; then the point moves elsewhere.

        Args:
            claim: The claim, with entries.
            asked: Which of them the caller asks for, boolean; of others rounding may be missed.
        """
        generator = torch.Generator().manual_seed(self._routes.seed)
        step = claim.epsilon**_NUDGE
        entries = claim.entries.abs()
        found = torch.zeros_like(asked)
        for _ in range(_NUDGES):
            moved = [
                x + step * _sizes(x) * signed_vector(x, generator, real=False)
                for x in self._centre.point
            ]
            change = (claim.entries_at(moved) - claim.entries).abs()
            is_other = change > _VISIBLE * entries
            sizes = torch.where(is_other, entries.maximum(change), 0)
            levels = _of_tensors(sizes, self._centre.point)
            found |= is_other | (_VISIBLE * entries <= levels)
            if bool(found[asked].all()):
                break
        return found

    def _line(
        self, group: Group, steps: int, exponent: float, claim: Claim | None = None
    ) -> tuple[list[Tensor], Extrapolation]:
        # Which entries have little effect depends on the claim; other lines are of all claims.
        claims = self._first if claim is None or group.members is None else [claim]
        key = (group.number, 0 if group.members is None else claims[0].order)
        if key not in self._lines:
            direction = self._direction(group, claims, self._centre.epsilon**exponent)
            line = differences_along(self._evaluations, direction, exponent, steps)
            self._lines[key] = direction, line
        direction, line = self._lines[key]
        while line.taken < steps:
            line.refine()
        return direction, line

    def _direction(self, group: Group, claims: Sequence[Claim], step: float) -> list[Tensor]:
        """Return a random direction along which entries of the point have about equal effect.

        Args:
            group: Which entries are moved.
            claims: What says how large the effects are.
            step: The first step.
        """
        point = self._centre.point
        epsilon = self._centre.epsilon
        values = real_vector(self._centre.values)
        sizes = real_vector([_sizes(tensor) for tensor in point])
        moved = sizes = sizes if group.members is None else sizes * group.members
        share = group.rounding or _ROUNDING * epsilon**0.5
        for claim in claims:
            effects = (claim.entries * sizes).abs()
            rounding = epsilon * float(torch.linalg.vector_norm(claim.cotangent * values))
            count = max(1, int((effects > 0).sum()))
            least = rounding / step / share / count**0.5
            # The steps have to be above the rounding of the point, too.
            smallest = min(1.0, epsilon / step / share)
            reduced = sizes * torch.clamp(least / effects, min=smallest)
            moved = torch.where(effects > least, torch.minimum(moved, reduced), moved)
        generator = torch.Generator().manual_seed(self._routes.seed + group.number % 2**32)
        best, most = None, 0.0
        for _ in range(_DRAWS if claims else 1):
            drawn = self._signed(moved, generator)
            left = min((_left(claim.entries * drawn) for claim in claims), default=0.0)
            # One at a time: a large point allows no list of them.
            if best is None or left > most:
                best, most = drawn, left
        assert best is not None
        return tensors_of(best, point)

    def _signed(self, moved: Tensor, generator: torch.Generator) -> Tensor:
        return moved * real_vector(
            [signed_vector(each, generator, real=False) for each in self._centre.point]
        )

    def _noise_along(self, line: Extrapolation) -> Tensor:
        """Return the noise of derivatives along a line, for each row the largest in its tensor."""
        noise = line.noise(self._centre.epsilon**_NUDGE).nan_to_num(0.0)
        return _of_tensors(noise, self._centre.values)

    def _balanced(self, line: Extrapolation, noise: Callable[[], Tensor], part: slice) -> Tensor:
        """Return weights with which a part of the rows has about equal derivatives along a line.

        They are as they were where no row hides beside others. Rows whose derivative is within the
        rounding of their values, or noise, count as much as that.
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
        levels = noise()[part]
        is_noise = sizes <= levels / _VISIBLE
        sizes = torch.where(is_noise, torch.maximum(sizes, levels / tolerance), sizes)
        # Neither a weight may underflow in the dtype of the outputs, nor its square in float64.
        tiny = max(torch.finfo(y.dtype).tiny for y in self._routes.outputs if is_inexact(y))
        sizes = sizes.clamp(min=float(sizes.max()) * max(tiny**0.5, 1e-100))
        return weights * float(sizes.min()) / sizes


def _of_tensors(entries: Tensor, like: Sequence[Tensor]) -> Tensor:
    """Return for each entry the largest of those in the same tensor.

    Args:
        entries: Entries of all tensors, as of `real_vector`.
        like: The tensors.
    """
    parts = entries.split([real_vector([each]).numel() for each in like])
    return torch.cat([part.max().expand(len(part)) if len(part) else part for part in parts])


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
