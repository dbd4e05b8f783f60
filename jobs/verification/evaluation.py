"""Evaluate the function of a job, and of second order its gradient, at any point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from autodiff_core import KnownPullback
from jobs.errors import ConfigurationError, JobError
from jobs.functions.at_points import PointsFunction
from jobs.functions.batch_sum import BatchSum
from jobs.functions.curvature import Curvature
from jobs.functions.evaluation import evaluated
from jobs.functions.ragged import RaggedFunction
from jobs.functions.returned_values import leaves_of, named_outputs, nested
from jobs.functions.stages import Stage
from jobs.job import Job
from jobs.machine.measurement import limited_memory
from jobs.machine.memory import memory_budget
from jobs.machine.process_memory import resident_memory
from jobs.operations import OPERATIONS
from jobs.streams.at_points import values_at_points
from jobs.streams.products_at_points import value_and_product_at_points
from jobs.streams.summed import value_and_product
from jobs.verification.numerics import root_mean_square, signed_vector
from jobs.verification.widening import Widening

# How far a point is moved to see what a function has kept of others, relative to its size.
_MOVE = 1e-2


@dataclass(frozen=True)
class Centre:
    """A point, and the values of a function there.

    Attributes:
        point: The input tensors.
        values: The values.
        epsilon: The unit of rounding of the least precise stage between them.
        mode: In what the function is evaluated there and near it.
    """

    point: list[Tensor]
    values: list[Tensor]
    epsilon: float
    mode: AbstractContextManager[object] = field(default_factory=nullcontext)


class Evaluations:
    """The function of a job near its point, with a count of how often it was evaluated.

    Of second order a value is that of the function and then its gradient, from one pass. Many
    points are one point of the function that evaluates all of them, with a leading dimension.

    Attributes:
        point: The input tensors.
        points: How many points these are; None if it is one.
        is_second_order: Whether values include the gradient.
        count: How often the function was evaluated.
        reference: The function's name in messages.
        job: The job.
    """

    def __init__(self, job: Job, like: Sequence[Tensor] = ()) -> None:
        """Keep the function and the point; nothing is evaluated yet.

        Args:
            job: The job.
            like: What the function returns at the point, if that is known.
        """
        self.point = [tensor.detach() for tensor in job.point.values()]
        self.points = job.points
        self.is_second_order = OPERATIONS[job.operation].is_second_order
        self.count = 0
        self.reference = job.function.reference
        self.job = job
        self._function = job.function
        self._seed = job.seed
        self._like = [each.detach() for each in like]
        self._centre: list[Tensor] | None = None
        self._widest: Centre | None = None

    @property
    def epsilon(self) -> float:
        """The unit of rounding of the function's least precise stage, as far as it is known."""
        return _epsilon(self.point, self.job.stage)

    @property
    def like(self) -> list[Tensor]:
        """What the function returns at the point, integers included."""
        if not self._like:
            self._like = list(self.outputs(self.point).values())
        return self._like

    def named_values(self, point: Sequence[Tensor]) -> dict[str, Tensor]:
        """Evaluate at a point; integers are left out."""
        if not self.is_second_order:
            return {k: v for k, v in self.outputs(point).items() if is_inexact(v)}
        (scalar,) = self.like
        dtype = point[0].dtype
        dtype = dtype if scalar.is_complex() or not dtype.is_complex else dtype.to_real()
        ones = torch.ones_like(scalar, dtype=dtype)
        value, _, gradient = self.product("vjp", point, [ones])
        return self._named(value, gradient)

    def _named(self, value: object, gradient: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        named = named_outputs(self._function, value)
        named |= {f"gradient {number}": each for number, each in enumerate(gradient)}
        return {name: each.detach() for name, each in named.items() if is_inexact(each)}

    @property
    def entries_before_the_gradient(self) -> int:
        """How many entries of the values are of the function, of second order; else 0."""
        return (self.points or 1) if self.is_second_order else 0

    def values(self, point: Sequence[Tensor]) -> list[Tensor]:
        """Evaluate at a point, without names."""
        return list(self.named_values(point).values())

    @property
    def has_values_of_products(self) -> bool:
        """Whether a product comes with the values; of many points it has their sum only."""
        return self.points is None or not self.is_second_order

    def values_of(self, value: object, gradient: Sequence[Tensor]) -> list[Tensor]:
        """Return as `values` what came with a product."""
        return list(self._named(value, gradient).values())

    def product(
        self,
        operation: str,
        point: Sequence[Tensor],
        vector: Sequence[Tensor],
        strategy: str = "reverse-loop",
        known: KnownPullback | None = None,
        function: Callable[..., Any] | None = None,
    ) -> tuple[object, list[Tensor], list[Tensor]]:
        """Return the value at a point, of second order the gradient, and a product.

        Args:
            operation: ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
            point: The point.
            vector: The vector.
            strategy: The strategy.
            known: As `autodiff_core.blocks` takes it, unless the function `is_of_terms`.
            function: What is evaluated; by default the function of the job.
        """
        self.count += 1
        function = function or self._function.function
        if self.points is not None:
            return value_and_product_at_points(
                operation, function, point, vector, seed=self._seed, strategy=strategy, known=known
            )
        options: dict[str, Any] = {} if known is None else {"known": known}
        if self.is_of_one_function:
            # Differences of the gradient are compared with its derivative in any case.
            options["check_second_order"] = not self.job.differences
        inputs = nested({str(number): tensor.detach() for number, tensor in enumerate(point)})
        value, gradient, image = value_and_product(
            operation,
            function,
            inputs,
            tuple(vector),
            seed=self._seed,
            strategy=strategy,
            **options,
        )
        return value, list(gradient), leaves_of(image)

    @property
    def is_of_one_function(self) -> bool:
        """Whether a product is that of one function at one point, not a sum of products."""
        is_sum = isinstance(self._function.function, BatchSum | Curvature)
        return self.points is None and not is_sum

    @property
    def is_of_terms(self) -> bool:
        """Whether a product is, at one point or at each of many, the sum of those of several terms.

        Points of different sizes are terms that do not overlap.
        """
        function = self._function.function
        if isinstance(function, PointsFunction):
            return function.kind is not None
        if isinstance(function, RaggedFunction):
            return any(isinstance(point.call, Curvature) for point in function.points)
        return isinstance(function, BatchSum | Curvature)

    def require_repeatable(self, value: object = None, gradient: Sequence[Tensor] = ()) -> None:
        """Compare an evaluation at the point with what the function has returned there before.

        Args:
            value: What this evaluation returned; None evaluates now.
            gradient: The gradient that it gave, of second order.

        Raises:
            JobError: The values differ.
        """
        before = [each.detach() for each in self.like if is_inexact(each)]
        value = value if self.has_values_of_products else None
        now = self.named_values(self.point) if value is None else self._named(value, gradient)
        self._centre = list(now.values())
        for (name, value), other in zip(now.items(), before, strict=False):
            scale = float(torch.nan_to_num(value).abs().max()) if value.numel() else 0.0
            difference = torch.nan_to_num(value - other.to(value)).abs()
            most = float(difference.max()) if value.numel() else 0.0
            if most > max(torch.finfo(value.dtype).eps, self.epsilon) ** 0.5 * scale:
                if changed := sorted(self.job.function.changed):
                    raise JobError(
                        f"function={self.reference} changes {', '.join(changed)} in place, so that "
                        f"{name} differs by {most:.3g} between two evaluations at the same point; "
                        f"let it change a copy: {changed[0]} = {changed[0]}.clone()"
                    )
                self._require_sum_over_samples(before)
                raise JobError(
                    f"function={self.reference} returns a different value on each call: {name} "
                    f"differs by {most:.3g} between two evaluations at the same point, where its "
                    f"largest entry is {scale:.3g}; a derivative needs a function whose value "
                    "depends on its inputs alone. Random numbers are reproducible by torch's own "
                    "generators, which seed= sets"
                )

    def _require_sum_over_samples(self, before: Sequence[Tensor]) -> None:
        """Refuse a loss that is evaluated to the same again, but not by its samples.

        Args:
            before: What was returned at the point.

        Raises:
            ConfigurationError: The loss of a Fisher matrix does not combine samples as it says.
        """
        if self.job.operation != "fisher":
            return
        again = self.outputs(self.point).values()
        if all(_agree(a, b, self.epsilon**0.5) for a, b in zip(again, before, strict=True)):
            raise ConfigurationError(
                "op=fisher: the loss of samples together is not what their losses by themselves "
                "add up to, as loss.reduction= says: the matrix consists of the gradients of "
                "these. Valid is a loss that is a mean or a sum over the leading dimension of "
                "its data; with points.batched=true a point is one sample"
            )

    @property
    def has_past(self) -> bool:
        """Whether an evaluation has stored something."""
        return self._function.kept is not None and self._function.kept.is_changed()

    def require_no_past(self) -> None:
        """Compare evaluations near the point with and without what earlier ones have stored.

        Raises:
            JobError: The values differ.
        """
        kept = self._function.kept
        if kept is None or not self.has_past:
            return
        generator = torch.Generator().manual_seed(self._seed)
        moved = [
            x + _MOVE * (root_mean_square([x]) or 1.0) * signed_vector(x, generator, real=True)
            for x in self.point
        ]
        pairs: list[tuple[Tensor, Tensor]] = []
        # A function may raise anything away from its point.
        with suppress(Exception):
            now = self.values(moved)
            with kept.forgotten():
                pairs = [*zip(self.values(moved), now, strict=True)]
        for fresh, other in pairs:
            share = max(torch.finfo(fresh.dtype).eps, self.epsilon) ** 0.5
            if not _agree(fresh, other, share):
                raise JobError(
                    f"function={self.reference} depends on its earlier calls: near the point its "
                    f"value differs by {float((fresh - other).abs().max()):.3g} if what they have "
                    "stored is forgotten; a derivative needs a function whose value depends on "
                    "its inputs alone. Look for caches, and for iterations that begin where an "
                    "earlier call has ended"
                )

    def know_centre(self, value: object, gradient: Sequence[Tensor]) -> None:
        """Take the values at the point from a product."""
        self._centre = self.values_of(value, gradient)

    def centre(self) -> list[Tensor]:
        """Return the values at the point."""
        if self._centre is None:
            self._centre = self.values(self.point)
        return self._centre

    def widest(self, values_at: Callable[[Centre], list[Tensor]] | None = None) -> Centre:
        """Return the point and the values there, in double precision where that is possible.

        Args:
            values_at: Evaluates at a centre, in its mode; by default without a derivative.
        """
        if self._widest is None:
            values = self.centre()
            epsilon = max(_epsilon(values), self.epsilon)
            given = Centre(self.point, values, epsilon)
            is_double = epsilon == torch.finfo(torch.float64).eps
            wide = None if is_double else self._widened(given, values_at or self.values_at)
            self._widest = wide or given
        return self._widest

    def forget(self) -> None:
        """Free what `widest` widened: functions that refer to themselves keep this alive."""
        if self._widest is not None and isinstance(self._widest.mode, Widening):
            self._widest.mode.forget()

    def values_at(self, centre: Centre) -> list[Tensor]:
        """Evaluate at a centre, in its mode."""
        with centre.mode:
            return self.values(centre.point)

    def near(self, point: Sequence[Tensor]) -> list[Tensor]:
        """Evaluate at a point near the `widest`, as there."""
        return self.values_at(replace(self.widest(), point=list(point)))

    def _widened(self, given: Centre, values_at: Callable[[Centre], list[Tensor]]) -> Centre | None:
        """Return the centre in double precision; None where that is another function."""
        mode = Widening()
        # A function may raise anything where a dtype does not suit it, or has no room, and some
        # devices have no double precision.
        try:
            doubles = [tensor.to(double_of(tensor)) for tensor in given.point]
            with _within_memory(self.job):
                found = values_at(Centre(doubles, [], given.epsilon, mode))
        except Exception:
            return None
        is_same = all(
            wide.dtype == double_of(wide)
            and wide.shape == narrow.shape
            and (_agree(wide, narrow, given.epsilon**0.5) or _is_rounding(wide, narrow))
            for wide, narrow in zip(found, given.values, strict=True)
        )
        return Centre(doubles, found, max(_epsilon(found), mode.epsilon), mode) if is_same else None

    def outputs(self, point: Sequence[Tensor]) -> dict[str, Tensor]:
        """Evaluate as a derivative does, without a product."""
        self.count += 1
        if self.points is not None:
            parts = values_at_points(self._function.function, point, self._seed)
            named = [named_outputs(self._function, value) for value in parts]
            return {k: torch.cat([each[k].detach() for each in named]) for k in named[0]}
        value = evaluated(self._function.function, point, self._seed)
        return {name: each.detach() for name, each in named_outputs(self._function, value).items()}


def _within_memory(job: Job) -> AbstractContextManager[None]:
    if job.device.type != "cpu":
        return nullcontext()
    budget = memory_budget(job.memory, job.device, len(job.devices))
    return limited_memory(max(0, budget.bytes - resident_memory()))


def _agree(wide: Tensor, narrow: Tensor, share: float) -> bool:
    """Return whether tensors differ by at most a share of their largest entry."""
    scale = torch.linalg.vector_norm(torch.nan_to_num(wide), torch.inf)
    return bool((torch.nan_to_num(wide - narrow).abs() <= share * scale).all())


def _is_rounding(wide: Tensor, narrow: Tensor) -> bool:
    """Return whether a tensor becomes smaller as the unit of rounding does: it is zero but for it.

    The gradient by the bias of the keys in attention is an example.
    """
    smaller = (torch.finfo(wide.dtype).eps / torch.finfo(narrow.dtype).eps) ** 0.5
    return bool(wide.abs().max() <= smaller * narrow.abs().max())


def _epsilon(tensors: Sequence[Tensor], stage: Stage | None = None) -> float:
    dtypes = [each.dtype for each in (*tensors, *((stage,) if stage else ()))]
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def double_of(tensor: Tensor) -> torch.dtype:
    """Return the dtype of double precision, real or complex as the tensor is."""
    return torch.complex128 if tensor.is_complex() else torch.float64


def is_inexact(tensor: Tensor) -> bool:
    """Return whether a tensor is of floating-point or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()
