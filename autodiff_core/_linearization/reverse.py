"""Reverse-mode strategies: one retained graph, pulled back row by row or batched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from autodiff_core._block import Axis
from autodiff_core._engines.agreement import LinearMap
from autodiff_core._engines.batched import one_by_one
from autodiff_core._engines.captured import Apply
from autodiff_core._engines.choice import ALL
from autodiff_core._errors import (
    MissingForwardDerivativeError,
    MissingReverseDerivativeError,
    explained,
)
from autodiff_core._linearization.double_backward import TransposedPullback, pull
from autodiff_core._linearization.forward import ForwardLoop
from autodiff_core._linearization.linearization import Linearization, Request
from autodiff_core._tensors.vectors import Vector, Vectors


class ReverseLoop(Linearization):
    """The function is evaluated once; each cotangent is one backward pass over its graph.

    The most widely applicable strategy, and the reference for the others. Its outputs keep their
    graph.
    """

    axis = Axis.ROWS
    name = "reverse-loop"

    def __init__(self, request: Request) -> None:
        """Evaluate the function at the point and keep the graph."""
        super().__init__(request)
        self._request = request
        self._transposed: TransposedPullback | None = None
        with explained(self.name), torch.enable_grad():
            self.outputs = request.function(*request.primals)

    def release(self) -> None:
        """Free the graphs, as `Linearization.release` says."""
        super().release()
        self._transposed = None

    def pullback(self, cotangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return vector-Jacobian products by backward passes; see `Linearization.pullback`."""
        with self._explained():
            return self._apply(self._pull, cotangents, start, stop)

    def pushforward(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return Jacobian-vector products by the double-backward trick.

        Raises:
            DoubleBackwardError: The trick gives wrong numbers for this function.
        """
        with self._explained():
            if self._transposed is None:
                self._transposed = TransposedPullback(
                    self.outputs, self._primals, create_graph=self._create_graph
                )
            images = self._apply(self._transposed.push, tangents, start, stop)
        self._transposed.check(tangents.stack(start, stop), images)
        return images

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Explain errors, and say so if forward mode cannot differentiate the function either."""
        try:
            with explained(self.name):
                yield
        except MissingReverseDerivativeError as error:
            try:
                ForwardLoop(replace(self._request, report=lambda fallback: None))
            except MissingForwardDerivativeError as neither:
                raise MissingReverseDerivativeError(str(neither)) from error
            raise

    def _apply(
        self, linear_map: LinearMap, vectors: Vectors, start: int, stop: int
    ) -> tuple[Tensor, ...]:
        return one_by_one(linear_map, vectors, start, stop, keep_graph=self._create_graph)

    def _pull(self, cotangent: Vector) -> tuple[Tensor, ...]:
        return pull(self.outputs, self._primals, cotangent, create_graph=self._create_graph)


class Vectorize(ReverseLoop):
    """The same retained graph, pulled back for a whole chunk of vectors at once under vmap."""

    name = "vectorize"
    engines = ALL

    def __init__(self, request: Request) -> None:
        """Evaluate the function at the point and keep the graph, as `ReverseLoop` does."""
        super().__init__(request)
        self._batched: dict[LinearMap, Apply] = {}

    def _apply(
        self, linear_map: LinearMap, vectors: Vectors, start: int, stop: int
    ) -> tuple[Tensor, ...]:
        if linear_map not in self._batched:
            space = self.outputs if linear_map == self._pull else self._primals
            self._batched[linear_map] = self._batched_by_engine(linear_map, linear_map, space)
        return self._batched[linear_map](vectors, start, stop)
