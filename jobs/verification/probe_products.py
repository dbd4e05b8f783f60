"""Compute products with probe vectors by a route other than the strategy of the blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from jobs.functions.returned_values import leaves_of
from jobs.functions.tracebacks import one_line
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.records.announcements import route_of_check, trying_route
from jobs.streams.at_points import products_at_points
from jobs.streams.summed import product
from jobs.verification.numerics import Probe, flattened, multiplied, signed_vector, widened

# Dual numbers, or the double-backward trick where an operator has no forward derivative.
_FORWARD_ROUTES = ("forward-loop", "reverse-loop")


_REVERSE_ROUTES = ("reverse-loop",)


class ProbeProducts:
    """Random vectors and their products with the matrix by another route."""

    def __init__(self, job: Job, value: Any) -> None:
        """Keep the job and what its function returns at the point."""
        self._job = job
        self._operation = OPERATIONS[job.operation]
        self._inputs = list(job.point.values())
        self._outputs = self._inputs if self._operation.is_second_order else leaves_of(value)
        self._generator = torch.Generator()
        self._is_complex = any(t.is_complex() for t in (*self._outputs, *self._inputs))

    def right(self) -> tuple[Probe | None, str]:
        """Return v and M v, or why none; of many points, the same v for each of them."""
        self._generator.manual_seed(probe_seed(self._job))
        if self._job.points is not None:
            return self._right_at_points()
        vector = self._draw(self._inputs, real=True)
        operation = self._operation.from_right
        pushed, reason = self._product(operation, vector, _FORWARD_ROUTES)
        if pushed is None:
            return None, reason
        if self._is_complex and not all(part.is_complex() for part in pushed):
            # The convention of the matrix: dy/d(Re x) + i dy/d(Im x) for real y.
            turned = [part * 1j if part.is_complex() else torch.zeros_like(part) for part in vector]
            seconds, reason = self._product(operation, turned, _FORWARD_ROUTES)
            if seconds is None:
                return None, reason
            pushed = [
                first if first.is_complex() else torch.complex(first, second)
                for first, second in zip(pushed, seconds, strict=True)
            ]
        return Probe(flattened(vector), flattened(pushed)), ""

    def _right_at_points(self) -> tuple[Probe | None, str]:
        vector = self._draw([tensor[0] for tensor in self._inputs], real=True)

        def multiply(strategy: str) -> list[Tensor]:
            return products_at_points(
                self._operation.from_right,
                self._job.function.function,
                self._inputs,
                vector,
                seed=self._job.seed,
                strategy=strategy,
            )

        pushed, reason = _first_route(
            self._job, multiply, self._operation.from_right, _FORWARD_ROUTES
        )
        return (
            (None, reason) if pushed is None else (Probe(flattened(vector), flattened(pushed)), "")
        )

    def left(self) -> tuple[Probe | None, str]:
        """Return u and uᵀ M; for a Hessian u is v, so that the two products show its asymmetry."""
        self._generator.manual_seed(probe_seed(self._job))
        vector = self._draw(self._outputs, real=True)
        if not self._is_complex:
            pulled, reason = self._pull(vector)
            return (
                (None, reason)
                if pulled is None
                else (Probe(flattened(vector), flattened(pulled)), "")
            )
        # By the convention of the matrix, with y split into its real and complex tensors: for
        # a complex x the pullback of torch conjugates the complex part, for a real x it keeps
        # the real part and gives the imaginary one for i u.
        zeros = [torch.zeros_like(part) for part in vector]
        real, complex_ = (
            [u if u.is_complex() is wanted else zero for u, zero in zip(vector, zeros, strict=True)]
            for wanted in (False, True)
        )
        turned = [part * 1j if part.is_complex() else part for part in complex_]
        parts = [self._pull(u) for u in (real, complex_, turned)]
        from_real, from_complex, from_turned = (pulled for pulled, _ in parts)
        if from_real is None or from_complex is None or from_turned is None:
            return None, next(reason for _, reason in parts if reason)
        product = [
            a + b.conj() if x.is_complex() else torch.complex(a + b, c)
            for x, a, b, c in zip(self._inputs, from_real, from_complex, from_turned, strict=True)
        ]
        return Probe(flattened(vector), flattened(product)), ""

    def of_product(self) -> tuple[Probe | None, str]:
        """Return w and the products <V, M w> that rows of a product must have with it.

        A row of a pullback is Mᵀ V_i, and <Mᵀ V_i, w> = <V_i, M w>; of a pushforward likewise.
        """
        self._generator.manual_seed(probe_seed(self._job))
        if self._operation.is_from_left:
            vector = self._draw(self._inputs, real=False)
            image, reason = self._product(self._operation.from_right, vector, _FORWARD_ROUTES)
        else:
            vector = self._draw(self._outputs, real=False)
            image, reason = self._pull(vector)
        if image is None:
            return None, reason
        vectors = self._job.vectors.values()
        stacked = torch.cat([part.reshape(len(part), -1) for part in vectors], dim=1)
        expected = multiplied(widened(stacked), widened(flattened(image)), is_product=True)
        return Probe(flattened(vector), expected), ""

    def _draw(self, like: Sequence[Tensor], *, real: bool) -> list[Tensor]:
        return [signed_vector(tensor, self._generator, real=real) for tensor in like]

    def _pull(self, vector: Sequence[Tensor]) -> tuple[list[Tensor] | None, str]:
        return self._product(self._operation.from_left, vector, _REVERSE_ROUTES)

    def _product(
        self, operation: str, vector: Sequence[Tensor], strategies: Sequence[str]
    ) -> tuple[list[Tensor] | None, str]:
        """Return the product by the first strategy that can compute it, or why none can."""

        def multiply(strategy: str) -> list[Tensor]:
            return leaves_of(
                product(
                    operation,
                    self._job.function.function,
                    self._job.inputs,
                    tuple(vector),
                    seed=self._job.seed,
                    strategy=strategy,
                )
            )

        return _first_route(self._job, multiply, operation, strategies)


def _first_route(
    job: Job, multiply: Callable[[str], list[Tensor]], operation: str, strategies: Sequence[str]
) -> tuple[list[Tensor] | None, str]:
    reason = ""
    for strategy in strategies:
        if (left_out := job.excluded.get(route_of_check(strategy))) is not None:
            reason = left_out
            continue
        trying_route(job, strategy)
        try:
            return multiply(strategy), ""
        except (RuntimeError, NotImplementedError) as error:
            reason = one_line(error)
    return None, f"no other route to {operation}: {reason}"


def probe_seed(job: Job) -> int:
    """Return the seed of the random vectors, which follows from the fingerprint."""
    return int(job.fingerprint[:15], 16)
