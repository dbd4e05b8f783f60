"""Compute products with probe vectors by a route other than the strategy of the blocks.

M v comes from dual numbers, else from double backward, else from differences of the function along
v; uᵀ M from a plain reverse pass, for a Hessian else from differences of the gradient. A route that
is known to be wrong is left out, and entries that are not finite are replaced by differences where
those converge.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jobs.functions.tracebacks import one_line
from jobs.operations import OPERATIONS
from jobs.records.announcements import route_of_check, trying_route
from jobs.streams.vectors import ranges_of_vectors, vectors_of_range
from jobs.verification.differences import compare_with_differences
from jobs.verification.numerics import (
    Probe,
    flattened,
    multiplied,
    rounding_floor,
    signed_vector,
    widened,
)
from jobs.verification.routes import BEYOND, Mode, Routes, real_vector


class ProbeProducts:
    """Random vectors and their products with the matrix by another route."""

    def __init__(self, routes: Routes, tolerance: float) -> None:
        """Keep the routes.

        Args:
            routes: The routes to the derivative, compared with differences before.
            tolerance: The largest relative error that passes.
        """
        self._job = routes.job
        self._routes = routes
        self._tolerance = tolerance
        self._operation = OPERATIONS[self._job.operation]
        # Of many points, those of one.
        points = routes.evaluations.points
        self._inputs, self._outputs = (
            tensors if points is None else [tensor[0] for tensor in tensors]
            for tensors in (routes.evaluations.point, routes.outputs)
        )
        if self._job.is_ragged:
            self._inputs = [self._inputs[0].new_empty(max(self._widths))]
        self._generator = torch.Generator()
        self._is_complex = any(t.is_complex() for t in (*self._outputs, *self._inputs))

    def right(self) -> tuple[Probe | None, str]:
        """Return v and M v, or why none; of many points, the same v for each of them."""
        self._generator.manual_seed(self._routes.seed)
        vector = self._within(self._draw(self._inputs, real=True), is_right=True)
        pushed, reason = self._push(vector)
        if pushed is None:
            return None, reason
        is_real = not self._is_complex or self._job.points is not None
        if not is_real and not all(part.is_complex() for part in pushed):
            # The convention of the matrix: dy/d(Re x) + i dy/d(Im x) for real y.
            turned = [part * 1j if part.is_complex() else torch.zeros_like(part) for part in vector]
            seconds, reason = self._push(turned)
            if seconds is None:
                return None, reason
            pushed = [
                first if first.is_complex() else torch.complex(first, second)
                for first, second in zip(pushed, seconds, strict=True)
            ]
        return self._selected(Probe(flattened(vector), flattened(pushed)), is_right=True), ""

    def left(self) -> tuple[Probe | None, str]:
        """Return u and uᵀ M; for a Hessian u is v, so that the two products show its asymmetry."""
        self._generator.manual_seed(self._routes.seed)
        vector = self._within(self._draw(self._outputs, real=True))
        if not self._is_complex:
            pulled, reason = self._pull(vector)
            return (
                (None, reason)
                if pulled is None
                else (self._selected(Probe(flattened(vector), flattened(pulled))), "")
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
        self._generator.manual_seed(self._routes.seed)
        if self._operation.is_from_left:
            vector = self._draw(self._inputs, real=False)
            image, reason = self._push(vector)
        else:
            vector = self._draw(self._outputs, real=False)
            image, reason = self._pull(vector)
        if image is None:
            return None, reason
        expected = []
        for each in ranges_of_vectors(self._job):
            parts = vectors_of_range(self._job, each.start, each.stop)
            stacked = torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)
            expected.append(
                multiplied(widened(stacked), widened(flattened(image)), is_product=True)
            )
        return Probe(flattened(vector), torch.cat(expected)), ""

    def of_combination(self) -> tuple[Probe | None, str]:
        """Return c and the product with Σ c_i V_i, which the rows of a product must add up to.

        For products whose rows cannot be checked one by one.
        """
        if self._is_complex:
            return None, "no route to the products of complex tensors from the other side"
        ranges = [*ranges_of_vectors(self._job)]
        like = vectors_of_range(self._job, 0, 1)
        weights = signed_vector(like[0].new_empty(ranges[-1].stop), self._generator, real=True)
        vector = [torch.zeros_like(each[0]) for each in like]
        for each in ranges:
            stacks = vectors_of_range(self._job, each.start, each.stop)
            part = weights[each.start : each.stop]
            vector = [
                total + torch.tensordot(part.to(stack), stack, dims=1)
                for total, stack in zip(vector, stacks, strict=True)
            ]
        is_pulled = self._operation.is_from_left
        image, reason = self._pull(vector) if is_pulled else self._push(vector)
        return (None, reason) if image is None else (Probe(weights, flattened(image)), "")

    def _draw(self, like: Sequence[Tensor], *, real: bool) -> list[Tensor]:
        return [signed_vector(tensor, self._generator, real=real) for tensor in like]

    def _within(self, vector: list[Tensor], *, is_right: bool = False) -> list[Tensor]:
        """Return a vector that is zero outside the selected columns, or from the left the rows."""
        part = self._job.part
        if part is None or part.lines is None or self._job.is_ragged:
            return vector
        axis = part.lines.columns if is_right else part.lines.rows
        numbers = torch.from_numpy(axis.numbers).to(vector[0].device)
        support = torch.zeros(sum(each.numel() for each in vector), device=vector[0].device)
        pieces = support.index_fill(0, numbers, 1.0).split([each.numel() for each in vector])
        return [a * b.reshape(a.shape).to(a) for a, b in zip(vector, pieces, strict=True)]

    def _selected(self, probe: Probe, *, is_right: bool = False) -> Probe:
        """Return the selected entries of a vector and of its product."""
        part = self._job.part
        if part is None or part.lines is None:
            return probe
        if self._job.is_ragged:
            rows = torch.from_numpy(part.lines.rows.numbers).to(probe.product.device)
            return Probe(probe.vector, probe.product[rows])
        axes = (part.lines.columns, part.lines.rows)
        of_vector, of_product = (
            torch.from_numpy(axis.numbers).to(probe.vector.device)
            for axis in (axes if is_right else axes[::-1])
        )
        # Of many points a vector is that of one, and its products are those of all.
        products = probe.product.reshape(-1, len(probe.vector))[:, of_product]
        return Probe(probe.vector[of_vector], products.reshape(-1))

    def _pull(self, vector: Sequence[Tensor]) -> tuple[list[Tensor] | None, str]:
        """Return uᵀ M by a plain reverse pass, for a Hessian else by differences."""
        image, reason = None, self._left_out("reverse", "reverse-loop")
        if not reason:
            trying_route(self._job, "reverse-loop")
            try:
                image, reason = self._routes.pull(vector)[-1], ""
            except (RuntimeError, NotImplementedError) as error:
                reason = f"no other route to {self._operation.from_left}: {one_line(error)}"
        # A Hessian is symmetric.
        return self._completed(image, vector, reason) if self._is_hessian else (image, reason)

    @property
    def _widths(self) -> list[int]:
        """The number of columns of each of several matrices of different sizes."""
        return self._job.function.function.widths if self._job.is_ragged else []

    @property
    def _is_hessian(self) -> bool:
        return self._operation.is_second_order

    def _push(self, vector: list[Tensor]) -> tuple[list[Tensor] | None, str]:
        """Return M v; of many points all rows of a point together."""
        points = self._routes.evaluations.points
        if self._job.is_ragged:
            like = self._routes.evaluations.point
            entries = torch.cat([vector[0][:width] for width in self._widths])
            if self._job.part is not None and (lines := self._job.part.lines) is not None:
                numbers = torch.from_numpy(lines.columns.numbers).to(entries.device)
                entries = entries.new_zeros(like[0].numel()).index_copy(0, numbers, entries)
            parts = entries.split([each.numel() for each in like])
            return self._pushed([a.reshape(b.shape) for a, b in zip(parts, like, strict=True)])
        if points is None:
            return self._pushed(vector)
        image, reason = self._pushed(
            [each.expand(points, *each.shape).contiguous() for each in vector]
        )
        if image is None:
            return None, reason
        return [torch.cat([each.reshape(points, -1) for each in image], dim=1)], reason

    def _pushed(self, vector: list[Tensor]) -> tuple[list[Tensor] | None, str]:
        """Return M v by the first route that can compute it and is not found wrong."""
        reason = ""
        # Dual numbers, or double backward where an operator has no forward derivative.
        routes: dict[Mode, str] = {"forward": "forward-loop", "reverse": "reverse-loop"}
        for mode, strategy in routes.items():
            if left_out := self._left_out(mode, strategy):
                reason = left_out
                continue
            trying_route(self._job, strategy)
            try:
                image = self._routes.push(vector, strategy)
            except (RuntimeError, NotImplementedError) as error:
                reason = f"no other route to {self._operation.from_right}: {one_line(error)}"
                continue
            if not self._is_refuted(vector, image, strategy):
                return self._completed(image, vector, reason)
        return self._completed(None, vector, reason)

    def _left_out(self, mode: Mode, strategy: str) -> str:
        """Return why a route is not tried; empty if it is."""
        if self._routes.is_rejected(mode):
            return f"{mode} mode is wrong for this function"
        if mode == "forward" and (reason := self._job.no_forward):
            return f"no other route to {self._operation.from_right}: {reason}"
        return self._job.excluded.get(route_of_check(strategy), "")

    def _is_refuted(self, vector: list[Tensor], image: list[Tensor], strategy: str) -> bool:
        """Return whether M v is wrong because <u, M v> is not <uᵀ M, v>, which is known better.

        Reverse mode is known better where it agrees with differences of the function, and where
        the job goes by it and asks for no differences.
        """
        routes = self._routes
        if strategy != "forward-loop" or routes.is_rejected("reverse"):
            return False
        sides = self._adjoint(vector, image)
        if sides is None:
            return False
        if self._job.differences and not routes.is_compared:
            compare_with_differences(routes)
            if routes.is_rejected("reverse"):
                return False
        by_forward, by_reverse, share = sides
        # Two routes agree with one another to no more than one of them does with the function.
        if routes.agrees_to is not None and share <= BEYOND * routes.agrees_to:
            return False
        note = (
            f"forward mode disagrees with reverse mode: <u, M v> is {by_forward:.9g} by dual "
            f"numbers and {by_reverse:.9g} by reverse mode"
        )
        reverse = "strategy=reverse-loop or strategy=vectorize"
        if routes.agrees_to is not None:
            routes.reject("forward", f"{note}; differences agree with reverse mode: use {reverse}")
        elif not self._job.differences and routes.family == "reverse":
            routes.reject("forward", f"{note}; verify.differences=false leaves it at that")
        elif not self._job.differences:
            routes.notes.append(f"{note}: torch.no_grad stops the gradients of {reverse} only")
        else:
            routes.notes.append(f"{note}; differences do not settle which of them is right")
        return routes.is_rejected("forward")

    def _adjoint(
        self, vector: list[Tensor], image: list[Tensor]
    ) -> tuple[float, float, float] | None:
        """Return <u, M v>, <uᵀ M, v> and by what share they differ; None where they do not."""
        u = self._routes.cotangent()
        try:
            pulled = self._routes.pull(u)[-1]
        except (RuntimeError, NotImplementedError):
            return None
        forward = real_vector(u) * real_vector(image)
        reverse = real_vector(pulled) * real_vector(vector)
        probe = Probe(flattened(vector), flattened(image))
        like = self._routes.evaluations.like
        floor = rounding_floor(self._job, like, probe, self._tolerance)
        size = float(forward.abs().sum() + reverse.abs().sum())
        size += floor * float(torch.linalg.vector_norm(real_vector(u)))
        by_forward, by_reverse = float(forward.sum()), float(reverse.sum())
        share = abs(by_forward - by_reverse) / (size or 1.0)
        return (by_forward, by_reverse, share) if share > self._tolerance else None

    def _completed(
        self, image: list[Tensor] | None, vector: Sequence[Tensor], reason: str
    ) -> tuple[list[Tensor] | None, str]:
        """Put differences where a product is missing or not finite."""
        is_finite = image is not None and all(bool(torch.isfinite(each).all()) for each in image)
        if is_finite or not self._job.differences:
            return image, reason
        try:
            found = self._routes.push_by_differences(vector)
        # A function may raise anything away from its point.
        except Exception:
            return image, reason
        if image is None:
            is_known = any(bool(torch.isfinite(each).any()) for each in found)
            return (found, "") if is_known else (None, reason)
        pairs = zip(image, found, strict=True)
        return [torch.where(torch.isfinite(one), one, other) for one, other in pairs], reason
