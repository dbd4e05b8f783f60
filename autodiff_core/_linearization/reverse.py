"""Reverse-mode strategies: one retained graph, pulled back row by row or batched."""

from __future__ import annotations

import torch
from torch import Tensor

from autodiff_core._engines.agreement import LinearMap, Report
from autodiff_core._engines.batched import Batched, one_by_one
from autodiff_core._engines.captured import Apply
from autodiff_core._engines.choice import ALL, PLAIN, EngineChoice
from autodiff_core._errors import explained
from autodiff_core._linearization.double_backward import TransposedPullback, pull
from autodiff_core._linearization.functions import Function
from autodiff_core._tensors.vectors import Vector, Vectors


class ReverseLoop:
    """The function is evaluated once; each cotangent is one backward pass over its graph.

    The way that survives most functions, and the reference for the others.

    Attributes:
        axis: What a basis chunk gives: rows.
        outputs: The outputs at the point, with their graph.
        engines: The engines that there are for the strategy.
        engine: The one that is used.
    """

    axis = "rows"
    name = "reverse-loop"
    engines = PLAIN

    def __init__(
        self,
        function: Function,
        primals: tuple[Tensor, ...],
        *,
        create_graph: bool,
        report: Report,
        engine: str = "plain",
    ) -> None:
        """Evaluate the function at the primals and keep the graph.

        Args:
            function: The function to linearise.
            primals: The point; tensors that require a gradient.
            create_graph: Whether derivatives must themselves be differentiable.
            report: Is told every slower way that is taken.
            engine: One of `engines`, or ``auto``.
        """
        self._primals = primals
        self._create_graph = create_graph
        self._report = report
        self.engine = EngineChoice(engine, self.name, report)
        self._transposed: TransposedPullback | None = None
        with explained(self.name), torch.enable_grad():
            self.outputs = function(*primals)

    def pullback(self, cotangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Vector-Jacobian products.

        Args:
            cotangents: Vectors over the outputs.
            start: The first vector.
            stop: One past the last.

        Returns:
            For each input a tensor of shape (stop - start, *input.shape).
        """
        with explained(self.name):
            return self._apply(self._pull, cotangents, start, stop)

    def pushforward(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Jacobian-vector products by the double-backward trick.

        Args:
            tangents: Vectors over the inputs.
            start: The first vector.
            stop: One past the last.

        Returns:
            For each output a tensor of shape (stop - start, *output.shape).

        Raises:
            DoubleBackwardError: The trick gives wrong numbers for this function.
        """
        with explained(self.name):
            if self._transposed is None:
                self._transposed = TransposedPullback(
                    self.outputs, self._primals, create_graph=self._create_graph
                )
            images = self._apply(self._transposed.push, tangents, start, stop)
        self._transposed.check(tangents.stack(start, stop), images)
        return images

    def _apply(
        self, linear_map: LinearMap, vectors: Vectors, start: int, stop: int
    ) -> tuple[Tensor, ...]:
        return one_by_one(linear_map, vectors, start, stop, keep_graph=self._create_graph)

    def _pull(self, cotangent: Vector) -> tuple[Tensor, ...]:
        return pull(self.outputs, self._primals, cotangent, create_graph=self._create_graph)


class Vectorize(ReverseLoop):
    """The same retained graph, pulled back for a whole basis chunk at once under vmap."""

    name = "vectorize"
    engines = ALL

    def _apply(
        self, linear_map: LinearMap, vectors: Vectors, start: int, stop: int
    ) -> tuple[Tensor, ...]:
        if linear_map not in self._batched:
            plain = Batched(
                linear_map,
                linear_map,
                strategy=self.name,
                keep_graph=self._create_graph,
                report=self._report,
            )
            space = self.outputs if linear_map == self._pull else self._primals
            self._batched[linear_map] = self.engine.engine(linear_map, space, plain)
        return self._batched[linear_map](vectors, start, stop)

    def __init__(
        self,
        function: Function,
        primals: tuple[Tensor, ...],
        *,
        create_graph: bool,
        report: Report,
        engine: str = "plain",
    ) -> None:
        """Evaluate the function at the primals and keep the graph, as `ReverseLoop` does."""
        super().__init__(function, primals, create_graph=create_graph, report=report, engine=engine)
        self._batched: dict[LinearMap, Apply] = {}
