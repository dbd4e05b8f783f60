"""Compare a derivative with the function itself, along random directions, by finite differences.

Products by two strategies cannot show what no strategy sees: a tensor that is detached on the way,
a backward pass that was written wrong, a module that its backward pass finds changed. Differences
of the function do.

For a random cotangent u and a random direction v the derivative of L(t) = Re <u, f(x + t v)> at
t = 0 is <Jᵀ u, v>; for second order f is the gradient. Central differences are extrapolated to the
step 0, with an estimate of their own error (C. J. F. Ridders, "Accurate computation of F'(x) and
F'(x) F''(x)", Advances in Engineering Software 4, 1982; W. H. Press et al., "Numerical Recipes",
section 5.7). They are taken in double precision where the function allows it.

The two are said to contradict one another only where they differ by far more than that error, in
two directions with two ranges of steps: at kinks, jumps and noise the estimates do not converge,
and the comparison is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from jobs.errors import JobError
from jobs.functions.batch_sum import BatchSum
from jobs.functions.returned_values import leaves_of, named_outputs, nested
from jobs.functions.stages import Stage, arithmetic
from jobs.functions.tracebacks import one_line
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.streams.summed import product
from jobs.verification.extrapolation import Extrapolation, extrapolated
from jobs.verification.numerics import root_mean_square, signed_vector
from jobs.verification.probe_products import probe_seed

# The first step, relative to the size of each input tensor, and how many steps there are; each is
# half of the one before. The second range is for functions that the first is too wide for.
_RANGES = ((1e-2, 3), (1e-4, 2))
# A deviation of this many estimated errors is beyond what the estimate may be wrong by.
_BEYOND = 30.0
# Where the estimated error exceeds this share of the derivative, the differences say nothing.
_CONVERGED = 1e-2
_NOT_CONVERGED = "differences do not converge: there is a kink, a jump or noise near this point"
_ROUNDING = "rounding hides the differences"
_UNSETTLED = "two directions do not tell the same"


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
            f"{self.derivative:.9g}"
        )


def comparison_summary(comparisons: Sequence[Comparison]) -> str:
    """Return how comparisons went, in one line."""
    open_ones = [str(each) for each in comparisons if each.state == "inconclusive"]
    if open_ones:
        return "; ".join(open_ones)
    largest = max(
        abs(each.derivative - each.difference) / (each.scale or 1) for each in comparisons
    )
    what = "the function" if len(comparisons) == 1 else "the function and its gradient"
    return f"finite differences of {what} agree, largest relative deviation {largest:.1e}"


def compare_with_differences(job: Job) -> tuple[Comparison, ...]:
    """Compare the derivative of a job's function, and of its gradient, with differences.

    Args:
        job: The job. Of many points the first is taken.

    Returns:
        One comparison for the function and, of second order, one for the gradient.

    Raises:
        JobError: The function returns a different value on each call.
    """
    orders = (1, 2) if OPERATIONS[job.operation].is_second_order else (1,)
    return tuple(_compare(_Function(job, order)) for order in orders)


class _Function:
    """The function of a job, or its gradient, at any point and as autograd differentiates it.

    Attributes:
        order: 1 for the function, 2 for its gradient.
        point: The input tensors, of one point.
        reference: The function's name in messages.
        seed: What random vectors are drawn from.
        tolerance: The relative error that is allowed to the derivative.
        epsilon: The precision of its least precise stage.
    """

    def __init__(self, job: Job, order: int) -> None:
        tensors = [tensor.detach() for tensor in job.point.values()]
        self.order = order
        self.point = [tensor[0] for tensor in tensors] if job.points is not None else tensors
        self.reference = job.function.reference
        self.seed = probe_seed(job)
        self.epsilon = _epsilon(tensors, job.stage)
        self.tolerance = job.tolerance or self.epsilon**0.5
        self._function = job.function
        self._torch_seed = job.seed
        self._like: list[Tensor] = []

    def named_values(self, point: Sequence[Tensor]) -> dict[str, Tensor]:
        """Evaluate at a point; integers are left out."""
        if self.order == 2:
            found = self._product("vjp", point, self._ones(point))
            return {f"gradient {number}": each for number, each in enumerate(found)}
        return {k: v for k, v in self._outputs(point).items() if _is_inexact(v)}

    def _outputs(self, point: Sequence[Tensor]) -> dict[str, Tensor]:
        """Evaluate as `product` does, one batch in memory at a time, with the same seeds."""
        function = self._function.function
        total: dict[str, Tensor] = {}
        for number, term in enumerate(
            function.terms() if isinstance(function, BatchSum) else [function]
        ):
            torch.manual_seed(self._torch_seed + number)
            # As a derivative evaluates it: some functions ask whether a gradient is wanted.
            inputs = [tensor.detach().clone().requires_grad_() for tensor in point]
            found = named_outputs(self._function, term(*inputs))
            detached = {name: each.detach() for name, each in found.items()}
            total = {k: total[k] + v for k, v in detached.items()} if total else detached
        self._like = self._like or list(total.values())
        return total

    def _ones(self, point: Sequence[Tensor]) -> list[Tensor]:
        if not self._like:
            self._outputs(self.point)
        (scalar,) = self._like
        dtype = point[0].dtype
        dtype = dtype if scalar.is_complex() or not dtype.is_complex else dtype.to_real()
        return [torch.ones_like(scalar, dtype=dtype)]

    def values(self, point: Sequence[Tensor]) -> list[Tensor]:
        """Evaluate at a point, without names."""
        return list(self.named_values(point).values())

    def epsilon_at(self, point: Sequence[Tensor]) -> float:
        """Return the precision of the least precise stage, at a point of any dtype."""
        function = self._function.function
        return _epsilon(point, arithmetic(function, point, self._torch_seed).stage)

    def pullback(self, cotangent: Sequence[Tensor]) -> list[Tensor]:
        """Return the product of a cotangent with the derivative, by a plain reverse pass."""
        if self.order == 2:
            return self._product("vhp", self.point, cotangent)
        given = iter(cotangent)
        # Integers have no derivative, and a cotangent of zeros.
        whole = [next(given) if _is_inexact(y) else torch.zeros_like(y) for y in self._like]
        return self._product("vjp", self.point, whole)

    def _product(
        self, operation: str, point: Sequence[Tensor], vector: Sequence[Tensor]
    ) -> list[Tensor]:
        inputs = nested({str(number): tensor.detach() for number, tensor in enumerate(point)})
        image = product(
            operation,
            self._function.function,
            inputs,
            tuple(vector),
            seed=self._torch_seed,
            strategy="reverse-loop",
        )
        return leaves_of(image)


def _compare(function: _Function) -> Comparison:
    try:
        values = function.named_values(function.point)
        _require_repeatable(function, values, function.named_values(function.point))
        line = _Lines(function, list(values.values()))
        found = line.settled(0)
        if found.state == "agree" and any(line.flat) and not all(line.flat):
            # A tensor with a derivative of zero hides beside others.
            hidden = line.settled(1, line.flat)
            found = hidden if hidden.state == "contradicted" else found
    except JobError:
        raise
    # A function may raise anything away from its point; what is wrong at the point, the job tells.
    except Exception as error:
        return Comparison("inconclusive", function.order, reason=one_line(error))
    return found


def _require_repeatable(
    function: _Function, first: dict[str, Tensor], second: dict[str, Tensor]
) -> None:
    for name, value in first.items():
        other = second[name]
        scale = float(torch.nan_to_num(value).abs().max()) if value.numel() else 0.0
        difference = torch.nan_to_num(value - other).abs()
        most = float(difference.max()) if value.numel() else 0.0
        if most > max(torch.finfo(value.dtype).eps, function.epsilon) ** 0.5 * scale:
            raise JobError(
                f"function={function.reference} returns a different value on each call: {name} "
                f"differs by {most:.3g} between two evaluations at the same point, where its "
                f"largest entry is {scale:.3g}; a derivative needs a function whose value depends "
                "on its inputs alone. Random numbers are reproducible by torch's own generators, "
                "which seed= sets"
            )


class _Lines:
    """Random lines through the point of a function, along which it is compared.

    Attributes:
        flat: For each input tensor, whether its derivative is exactly zero.
    """

    def __init__(self, function: _Function, values: list[Tensor]) -> None:
        self.flat: list[bool] = []
        self._function = function
        self._values = values
        self._point, self._centre = function.point, values
        self._generator = torch.Generator()
        self._epsilon = max(_epsilon(values), function.epsilon)
        # Where the function allows it, differences are taken in double precision.
        doubles = [tensor.to(_double(tensor)) for tensor in function.point]
        with suppress(Exception):
            found = function.values(doubles)
            if all(value.dtype == _double(value) for value in found):
                self._point, self._centre = doubles, found
                self._epsilon = function.epsilon_at(doubles)

    def settled(self, number: int, moved: Sequence[bool] | None = None) -> Comparison:
        """Compare along one line; where that does not agree, along another one as well.

        Args:
            number: The number of the line, which also chooses the range of steps.
            moved: Which input tensors are moved; None moves all.
        """
        first = self.compare(number, moved)
        if first.state == "agree":
            return first
        second = self.compare(number + 1, moved)
        is_better = first.state == "inconclusive" or second.error <= first.error
        if first.state == second.state or (second.state == "agree" and is_better):
            return second
        reason = first.reason or second.reason or _UNSETTLED
        return replace(second, state="inconclusive", reason=reason)

    def compare(self, number: int, moved: Sequence[bool] | None) -> Comparison:
        """Compare along one line."""
        self._generator.manual_seed(self._function.seed + number)
        direction = [
            (root_mean_square([tensor]) or 1.0) * self._drawn(tensor)
            for tensor in self._function.point
        ]
        if moved is not None:
            direction = [a * b for a, b in zip(direction, moved, strict=True)]
        cotangent = [self._drawn(value) for value in self._values]
        derivative = self._function.pullback(cotangent)
        self.flat = self.flat or [not bool(each.any()) for each in derivative]
        terms = torch.cat([_terms(a, b) for a, b in zip(derivative, direction, strict=True)])

        def along(step: float) -> Tensor:
            if step == 0:
                values = self._centre
            else:
                moved = [x + step * v for x, v in zip(self._point, direction, strict=True)]
                values = self._function.values(moved)
            return torch.cat([_terms(u, y) for u, y in zip(cotangent, values, strict=True)])

        start, steps = _RANGES[number % len(_RANGES)]
        found = extrapolated(along, start, steps)
        rounding = self._epsilon * found.size / found.step
        return self._judged(terms, replace(found, error=found.error + rounding), rounding)

    def _judged(self, terms: Tensor, found: Extrapolation, rounding: float) -> Comparison:
        slope = float(terms.sum())
        scale = max(abs(slope), float(terms.square().sum().sqrt()))
        judged = Comparison(
            "inconclusive",
            self._function.order,
            derivative=slope,
            difference=found.value,
            error=found.error,
            scale=scale,
            step=found.step,
            evaluations=found.evaluations,
        )
        if not math.isfinite(slope):
            return replace(judged, reason="the derivative is not finite at this point")
        if not math.isfinite(found.error):
            return replace(judged, reason="the function is not finite near this point")
        scale = max(scale, abs(found.value))
        judged = replace(judged, scale=scale)
        if found.error > max(_CONVERGED * min(scale, abs(found.value)), 10 * rounding):
            return replace(judged, reason=_NOT_CONVERGED)
        deviation = abs(slope - found.value)
        if deviation > _BEYOND * found.error + 10 * self._function.tolerance * scale:
            return replace(judged, state="contradicted")
        # Where rounding hides a deviation, nothing is shown.
        if deviation > _CONVERGED * scale or found.error > _CONVERGED * scale > 0:
            return replace(judged, reason=_ROUNDING)
        return replace(judged, state="agree")

    def _drawn(self, like: Tensor) -> Tensor:
        return signed_vector(like, self._generator, real=False)


def _terms(first: Tensor, second: Tensor) -> Tensor:
    """Return the terms of the real scalar product of two tensors, in double precision."""
    first, second = (each.to(_double(each)).reshape(-1).cpu() for each in (first, second))
    return (first.conj() * second).real if first.is_complex() else (first * second).real


def _epsilon(tensors: Sequence[Tensor], stage: Stage | None = None) -> float:
    dtypes = [each.dtype for each in (*tensors, *((stage,) if stage else ()))]
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def _double(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
