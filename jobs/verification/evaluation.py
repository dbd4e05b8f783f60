"""Evaluate the function of a job, and of second order its gradient, at any point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.errors import JobError
from jobs.functions.batch_sum import BatchSum
from jobs.functions.returned_values import leaves_of, named_outputs, nested
from jobs.functions.stages import Stage, arithmetic
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.streams.summed import value_and_product


@dataclass(frozen=True)
class Centre:
    """A point, and the values of a function there.

    Attributes:
        point: The input tensors.
        values: The values.
        epsilon: The unit of rounding of the least precise stage between them.
    """

    point: list[Tensor]
    values: list[Tensor]
    epsilon: float


class Evaluations:
    """The function of a job near one point, with a count of how often it was evaluated.

    Of second order a value is that of the function and then its gradient, from one pass.

    Attributes:
        point: The input tensors.
        is_second_order: Whether values include the gradient.
        count: How often the function was evaluated.
        reference: The function's name in messages.
        epsilon: The unit of rounding of the function's least precise stage.
    """

    def __init__(self, job: Job, like: Sequence[Tensor] = (), number: int = 0) -> None:
        """Keep the function and the point; nothing is evaluated yet.

        Args:
            job: The job.
            like: What the function returns at the point, if that is known.
            number: Which of many points.
        """
        tensors = [tensor.detach() for tensor in job.point.values()]
        self.point = [tensor[number] for tensor in tensors] if job.points is not None else tensors
        self.is_second_order = OPERATIONS[job.operation].is_second_order
        self.count = 0
        self.reference = job.function.reference
        self.epsilon = _epsilon(self.point, job.stage)
        self._function = job.function
        self._seed = job.seed
        self._like = list(like)
        self._centre: list[Tensor] | None = None
        self._widest: Centre | None = None

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
        value, gradient = self.product("vjp", point, [ones])
        found = named_outputs(self._function, value)
        return found | {f"gradient {number}": each for number, each in enumerate(gradient)}

    def values(self, point: Sequence[Tensor]) -> list[Tensor]:
        """Evaluate at a point, without names."""
        return list(self.named_values(point).values())

    def product(
        self,
        operation: str,
        point: Sequence[Tensor],
        vector: Sequence[Tensor],
        strategy: str = "reverse-loop",
    ) -> tuple[object, list[Tensor]]:
        """Return the function's value at a point, and a product of its derivative there."""
        self.count += 1
        inputs = nested({str(number): tensor.detach() for number, tensor in enumerate(point)})
        value, image = value_and_product(
            operation,
            self._function.function,
            inputs,
            tuple(vector),
            seed=self._seed,
            strategy=strategy,
        )
        return value, leaves_of(image)

    def require_repeatable(self, first: object = None) -> None:
        """Compare two evaluations at the point.

        Args:
            first: What the function returned at the point before; None evaluates it once more.

        Raises:
            JobError: The values differ.
        """
        if first is None:
            one = self.named_values(self.point)
        else:
            named = named_outputs(self._function, first)
            one = {name: value for name, value in named.items() if is_inexact(value)}
        other = self.named_values(self.point)
        self._centre = list(other.values())
        for name, value in one.items():
            scale = float(torch.nan_to_num(value).abs().max()) if value.numel() else 0.0
            difference = torch.nan_to_num(value - other[name]).abs()
            most = float(difference.max()) if value.numel() else 0.0
            if most > max(torch.finfo(value.dtype).eps, self.epsilon) ** 0.5 * scale:
                raise JobError(
                    f"function={self.reference} returns a different value on each call: {name} "
                    f"differs by {most:.3g} between two evaluations at the same point, where its "
                    f"largest entry is {scale:.3g}; a derivative needs a function whose value "
                    "depends on its inputs alone. Random numbers are reproducible by torch's own "
                    "generators, which seed= sets"
                )

    def centre(self) -> list[Tensor]:
        """Return the values at the point."""
        if self._centre is None:
            self._centre = self.values(self.point)
        return self._centre

    def widest(self) -> Centre:
        """Return the point and the values there, in double precision where that is possible."""
        if self._widest is None:
            values = self.centre()
            epsilon = max(_epsilon(values), self.epsilon)
            self._widest = self._in_double_precision() or Centre(self.point, values, epsilon)
        return self._widest

    def _in_double_precision(self) -> Centre | None:
        doubles = [tensor.to(double_of(tensor)) for tensor in self.point]
        if all(a.dtype == b.dtype for a, b in zip(doubles, self.point, strict=True)):
            return None
        # A function may raise anything where a dtype does not suit it.
        try:
            found = self.values(doubles)
        except Exception:
            return None
        is_double = all(value.dtype == double_of(value) for value in found)
        if not is_double:
            return None
        self.count += 1
        stage = arithmetic(self._function.function, doubles, self._seed).stage
        return Centre(doubles, found, _epsilon(doubles, stage))

    def outputs(self, point: Sequence[Tensor]) -> dict[str, Tensor]:
        """Evaluate as a product does, one batch in memory at a time, with the same seeds."""
        self.count += 1
        function = self._function.function
        terms = function.terms() if isinstance(function, BatchSum) else [function]
        total: dict[str, Tensor] = {}
        for number, term in enumerate(terms):
            torch.manual_seed(self._seed + number)
            # As a derivative evaluates it: some functions ask whether a gradient is wanted.
            inputs = [tensor.detach().clone().requires_grad_() for tensor in point]
            found = named_outputs(self._function, term(*inputs))
            detached = {name: each.detach() for name, each in found.items()}
            total = {k: total[k] + v for k, v in detached.items()} if total else detached
        return total


def _epsilon(tensors: Sequence[Tensor], stage: Stage | None = None) -> float:
    dtypes = [each.dtype for each in (*tensors, *((stage,) if stage else ()))]
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def double_of(tensor: Tensor) -> torch.dtype:
    """Return the dtype of double precision, real or complex as the tensor is."""
    return torch.complex128 if tensor.is_complex() else torch.float64


def is_inexact(tensor: Tensor) -> bool:
    """Return whether a tensor is of floating-point or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()
