"""Ways to one derivative: reverse mode, forward mode, and differences of the function.

Any of them may be wrong or missing for a function: an operator whose forward formula is wrong, a
custom backward, a tensor that leaves torch. `Routes` keeps what comparisons have shown, so that a
route that is known to be wrong verifies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Literal

import torch
from torch import Tensor

from autodiff_core import KnownPullback
from jobs.functions.blocks import BlocksFunction
from jobs.functions.returned_values import leaves_of
from jobs.functions.stages import ObservedFunction
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.strategies import FORWARD
from jobs.streams.single import pulled_by
from jobs.streams.stream import Stream
from jobs.verification.evaluation import Centre, Evaluations, double_of, is_inexact
from jobs.verification.extrapolation import Extrapolation
from jobs.verification.numerics import root_mean_square, signed_vector
from jobs.verification.precision import with_observed

Mode = Literal["reverse", "forward"]

# A deviation of this many estimated errors is beyond what an estimate may be wrong by.
BEYOND = 30.0
# The largest relative error of an entry that differences may leave uncertain.
_UNCERTAIN = 1e-3
# The same for the less certain of two ranges of steps that agree.
_ROUGH = 0.1
# For products the first step is ε to one of these powers, of the size of each input tensor. ε^(1/5)
# balances the truncation of two steps, of fourth order, with the rounding of the values.
_STEP_EXPONENTS = (0.2, 0.25, 0.3)
_STEPS = 3
# Products are kept at this many points beside the last one.
_KEPT = 2
_Pulled = tuple[object, list[Tensor], list[Tensor]]


class Routes:
    """The routes to the derivative of a job, of many points at all of them.

    Attributes:
        family: The mode of the job's strategy.
        evaluations: The function itself.
        agrees_to: The relative error to which reverse mode agrees with differences; None where it
            does not, or they say nothing.
        uncertainty: The largest relative error of an entry that `push_by_differences` has given.
        is_compared: Whether they were compared with differences.
        is_repeated: Whether the function was evaluated at the point once more than for the blocks.
        has_pushed_differences: Whether it has given any product.
        seed: What random vectors are drawn from.
        notes: What is wrong with the routes that are, as sentences for the user.
    """

    def __init__(
        self, job: Job, value: Any = None, strategy: str = "", stream: Stream | None = None
    ) -> None:
        """Keep the job; nothing is computed yet.

        Args:
            job: The job.
            value: What its function returns, of many points stacked; None if that is not known.
            strategy: The strategy that computes the blocks; that of the job by default.
            stream: What computes the blocks; its graph saves an evaluation at the point.
        """
        self.family: Mode = "forward" if (strategy or job.strategy) in FORWARD else "reverse"
        # Diagonal blocks are evaluated as a sum with a term for each.
        if isinstance(function := job.function.function, BlocksFunction) and value is not None:
            value = function.total(value)
        self.evaluations = Evaluations(job, [] if value is None else leaves_of(value))
        self.agrees_to: float | None = None
        self.uncertainty = 0.0
        self.has_pushed_differences = False
        self.is_compared = False
        self.is_repeated = False
        self.notes: list[str] = []
        self.seed = probe_seed(job)
        self._stream = stream
        self._rejected: set[Mode] = set()
        self._pulled: list[tuple[Sequence[Tensor], list[Tensor], _Pulled]] = []

    @property
    def job(self) -> Job:
        """The job, with what is known of the arithmetic of its function."""
        return self.evaluations.job

    def with_observed(self) -> Job:
        """Return the job with the arithmetic of its function, which the first product shows."""
        evaluations = self.evaluations
        if self.job.observed is not None:
            return self.job
        found = None
        if self.job.differences and evaluations.is_of_one_function:
            function = ObservedFunction(self.job.function.function, evaluations.point)
            # Torch or the function may raise anything where there is no derivative by this route.
            with suppress(Exception):
                self.pull(self.cotangent(), function=function)
            found = function.found
        evaluations.job = with_observed(self.job, found)
        return self.job

    @property
    def outputs(self) -> list[Tensor]:
        """Tensors like those along the rows: the outputs, or of second order the inputs."""
        is_second_order = self.evaluations.is_second_order
        return self.evaluations.point if is_second_order else self.evaluations.like

    @property
    def wide_outputs(self) -> list[Tensor]:
        """The same in double precision."""
        return [y.to(double_of(y)) if is_inexact(y) else y for y in self.outputs]

    def reject(self, mode: Mode, note: str) -> None:
        """Use a mode no longer, for a reason."""
        self._rejected.add(mode)
        self.notes.append(note)

    def is_rejected(self, mode: Mode) -> bool:
        """Return whether a mode is known to be wrong."""
        return mode in self._rejected

    def cotangent(self) -> list[Tensor]:
        """Return the random u; integers have no derivative, and zeros."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = [signed_vector(each, generator, real=False) for each in self.outputs]
        return [each if is_inexact(each) else torch.zeros_like(each) for each in drawn]

    def pull(
        self,
        cotangent: Sequence[Tensor],
        centre: Centre | None = None,
        function: Callable[..., Any] | None = None,
    ) -> _Pulled:
        """Return value, gradient (of second order) and uᵀ M by a plain reverse pass.

        At the point of the job the graph of the blocks is used, where there is one. The last
        product at each of a few points is kept.

        Args:
            cotangent: u.
            centre: Where, and in what mode; by default at the point of the job, as it is.
            function: What is evaluated; by default the function of the job.

        Raises:
            Exception: Whatever torch or the function raises where it cannot be differentiated.
        """
        operation = OPERATIONS[self.job.operation].from_left
        point = self.evaluations.point if centre is None else centre.point
        others = [each for each in self._pulled if each[0] is not point]
        for other, given, found in self._pulled:
            if other is point and all(map(torch.equal, given, cotangent)):
                return found
        is_here = point is self.evaluations.point
        found = pulled_by(self._stream, cotangent) if is_here and function is None else None
        if found is None:
            self.is_repeated = self.is_repeated or is_here
            with nullcontext() if centre is None else centre.mode:
                found = self.evaluations.product(operation, point, cotangent, function=function)
        self._pulled = [*others[-_KEPT:], (point, list(cotangent), found)]
        return found

    def require_repeatable(self, value: object = None, gradient: Sequence[Tensor] = ()) -> None:
        """Compare with an evaluation at the point as `Evaluations.require_repeatable`, once.

        Raises:
            JobError: The values differ.
        """
        self.is_repeated = True
        self.evaluations.require_repeatable(value, gradient)

    def widest(self, u: Tensor) -> Centre:
        """Return the centre in double precision, evaluated with uᵀ M, which is kept.

        Args:
            u: As `real_vector` makes it.
        """

        def values_at(centre: Centre) -> list[Tensor]:
            if self.evaluations.has_values_of_products:
                # Torch or the function may raise anything where it cannot be differentiated.
                with suppress(Exception):
                    value, gradient, _ = self.pull(tensors_of(u, self.wide_outputs), centre)
                    return self.evaluations.values_of(value, gradient)
            return self.evaluations.values_at(centre)

        return self.evaluations.widest(values_at)

    def push(
        self, tangent: Sequence[Tensor], strategy: str, centre: Centre | None = None
    ) -> list[Tensor]:
        """Return M v by dual numbers (``forward-loop``) or double backward (``reverse-loop``).

        Args:
            tangent: v.
            strategy: The strategy.
            centre: Where, and in what mode; by default at the point of the job, as it is.

        Raises:
            Exception: Whatever torch or the function raises where it cannot be differentiated.
        """
        operation = OPERATIONS[self.job.operation].from_right
        point = self.evaluations.point if centre is None else centre.point
        known = self._known_pullback() if strategy in FORWARD and centre is None else None
        with nullcontext() if centre is None else centre.mode:
            return self.evaluations.product(operation, point, tangent, strategy, known)[-1]

    def _known_pullback(self) -> KnownPullback | None:
        """Return a product by reverse mode at the point of the job, if one is kept."""
        evaluations, stage = self.evaluations, self.job.stage
        if evaluations.is_of_terms or self.is_rejected("reverse"):
            return None
        for point, cotangent, (value, gradient, image) in self._pulled:
            if point is evaluations.point:
                outputs = gradient if evaluations.is_second_order else leaves_of(value)
                dtypes = [each.dtype for each in (*outputs, *point) if is_inexact(each)]
                dtypes += [] if stage is None else [stage.dtype]
                precision = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
                return KnownPullback(tuple(outputs), tuple(cotangent), tuple(image), precision)
        return None

    def push_by_differences(self, tangent: Sequence[Tensor]) -> list[Tensor]:
        """Return M v by differences along v; NaN where they have not converged.

        An entry has converged where its error, with a margin, is below 1e-3 of it, or below
        `verify.tolerance`. The tolerance of the check has to cover it.
        """
        self.has_pushed_differences = True
        evaluations = self.evaluations
        # With steps for the smallest of the tensors: the product is that of the vector itself.
        size = min(root_mean_square([each]) or 1.0 for each in evaluations.point)
        direction = [size * each for each in tangent]
        found: list[tuple[Tensor, Tensor]] = []
        known = torch.zeros(0)
        for exponent in _STEP_EXPONENTS:
            line = differences_along(evaluations, direction, exponent, _STEPS)
            skipped = evaluations.entries_before_the_gradient
            found.append((line.value[skipped:] / size, line.error[skipped:] / size))
            if len(found) == 1:
                continue
            values = self._known(*found[-2:])
            known = values if len(found) == 2 else torch.where(torch.isnan(known), values, known)
            if not bool(torch.isnan(known).any()):
                break
        return self.split(known)

    def _known(self, wide: tuple[Tensor, Tensor], narrow: tuple[Tensor, Tensor]) -> Tensor:
        """Return the entries that two ranges of steps agree about; NaN for the others.

        Of many entries of a function that varies within the steps, some seem to converge by chance
        with one range, and none to the same value with two.
        """
        (one, error_of_one), (two, error_of_two) = wide, narrow
        is_first = error_of_one <= error_of_two
        value = torch.where(is_first, one, two)
        size = value.abs() + root_mean_square([value])
        shares = BEYOND * torch.stack([error_of_one, error_of_two]) / size
        is_same = (one - two).abs() <= BEYOND * (error_of_one + error_of_two)
        share = shares.min(0).values
        is_known = is_same & (shares.max(0).values <= _ROUGH)
        is_known &= share <= (self.job.tolerance or _UNCERTAIN)
        self.uncertainty = max(self.uncertainty, max(share[is_known].tolist(), default=0.0))
        return torch.where(is_known, value, torch.nan)

    def split(self, entries: Tensor) -> list[Tensor]:
        """Return a real vector as tensors like those along the rows; zeros for integers."""
        return tensors_of(entries, self.outputs)


def differences_along(
    evaluations: Evaluations, direction: Sequence[Tensor], exponent: float, steps: int
) -> Extrapolation:
    """Take differences of a function along a direction.

    Args:
        evaluations: The function.
        direction: What is added to the point, of the size of the point.
        exponent: The power of ε that is the first step.
        steps: How many steps are taken.
    """
    centre = evaluations.widest()
    first = centre.epsilon**exponent

    def at(step: float) -> Tensor:
        moved = [x + step * v for x, v in zip(centre.point, direction, strict=True)]
        return real_vector(evaluations.near(moved))

    return Extrapolation(at, real_vector(centre.values), first, steps, epsilon=centre.epsilon)


def real_vector(tensors: Sequence[Tensor]) -> Tensor:
    """Return all entries as one vector of float64 on the host, real and imaginary parts by turns.

    The real scalar product of tensors is that of these vectors.
    """
    parts = [each.detach().to(double_of(each)).reshape(-1).cpu() for each in tensors]
    return torch.cat([torch.view_as_real(p).reshape(-1) if p.is_complex() else p for p in parts])


def tensors_of(entries: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return what `real_vector` has made one vector; zeros for integers.

    Args:
        entries: The vector, without integers.
        like: Tensors of the shapes, dtypes and devices that are wanted.
    """
    tensors = []
    for each in like:
        if not is_inexact(each):
            tensors.append(torch.zeros_like(each))
            continue
        width = each.numel() * (2 if each.is_complex() else 1)
        part, entries = entries[:width], entries[width:]
        part = torch.complex(*part.reshape(-1, 2).unbind(-1)) if each.is_complex() else part
        tensors.append(part.reshape(each.shape).to(each.device, each.dtype))
    return tensors


def probe_seed(job: Job) -> int:
    """Return the seed of the random vectors, which follows from the fingerprint."""
    return int(job.fingerprint[:15], 16)
