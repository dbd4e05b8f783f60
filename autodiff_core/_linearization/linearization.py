"""The contract of a linearized function, and what all strategies share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autodiff_core._block import Axis
from autodiff_core._engines.agreement import LinearMap, ReportFallback
from autodiff_core._engines.batched import Batched
from autodiff_core._engines.captured import Apply
from autodiff_core._engines.choice import PLAIN, EngineChoice
from autodiff_core._linearization.adjoint import KnownPullback
from autodiff_core._linearization.functions import Function
from autodiff_core._linearization.graph import least_precise, nodes_between
from autodiff_core._tensors.vectors import Vectors


@dataclass(frozen=True)
class Request:
    """What a strategy linearizes, and with which options.

    Attributes:
        function: The function to linearize.
        primals: The point; tensors that require a gradient.
        create_graph: Whether derivatives must themselves be differentiable in reverse mode.
        report: Called with each fallback that is taken.
        engine: One of the strategy's `engines`, or ``auto``.
        check_modes: Whether forward mode is refused where reverse mode disagrees with it.
        tangent: As in `Choices`.
        known: As in `Choices`.
    """

    function: Function
    primals: tuple[Tensor, ...]
    create_graph: bool
    report: ReportFallback
    engine: str = "plain"
    check_modes: bool = True
    tangent: tuple[Tensor, ...] | None = None
    known: KnownPullback | None = None


class Linearization(ABC):
    """A function linearized at a point by one strategy.

    Attributes:
        name: The name of the strategy.
        axis: The axis of the matrix along which one application gives a line: rows by pullbacks,
            columns by pushforwards.
        engines: The names of the engines that the strategy can use.
        engine: The engine in use.
        outputs: The function's outputs at the point.
    """

    name: ClassVar[str]
    axis: ClassVar[Axis]
    engines: ClassVar[tuple[str, ...]] = PLAIN
    outputs: tuple[Tensor, ...]

    def __init__(self, request: Request) -> None:
        """Store the request; subclasses evaluate the function."""
        self._function = request.function
        self._primals = request.primals
        self._create_graph = request.create_graph
        self._report = request.report
        self.engine = EngineChoice(request.engine, self.name, request.report, self.precision)
        self._precision: torch.dtype | None = None
        self._nodes = 0

    @abstractmethod
    def pushforward(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return Jacobian-vector products.

        Args:
            tangents: Vectors over the inputs.
            start: The first vector.
            stop: One past the last.

        Returns:
            For each output a tensor of shape (stop - start, *output.shape).
        """

    def pullback(self, cotangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return vector-Jacobian products; strategies whose axis is rows have them.

        Args:
            cotangents: Vectors over the outputs.
            start: The first vector.
            stop: One past the last.

        Returns:
            For each input a tensor of shape (stop - start, *input.shape).
        """
        raise NotImplementedError(f"strategy {self.name!r} has no pullback")

    def lines(self, vectors: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return the products along the strategy's own axis: pullbacks or pushforwards."""
        apply = self.pullback if self.axis is Axis.ROWS else self.pushforward
        return apply(vectors, start, stop)

    def release(self) -> None:
        """Free the graph of autograd, without which nothing can be computed any more.

        Engines refer to the linearization, which refers to them: without this, what the graph holds
        lasts until Python collects cycles.
        """
        self.outputs = tuple(output.detach() for output in self.outputs)

    def precision(self) -> torch.dtype:
        """Return the least precise dtype that the derivative runs through.

        A function of float64 may have a stage of float32 inside, whose rounding is that of
        float32.
        """
        if self._precision is None:
            self._precision = least_precise(self.outputs, self._primals, ())
            # Where a graph cannot be had, the dtypes of inputs and outputs count.
            with suppress(Exception):
                self._examine(*self._graph())
        return self._precision

    @property
    def nodes(self) -> int:
        """The number of nodes in the graph of the derivative; 0 where a graph cannot be had."""
        self.precision()
        return self._nodes

    def _examine(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        """Keep what a graph tells of the precision and the size of the derivative."""
        nodes = nodes_between(outputs, inputs)
        self._precision, self._nodes = least_precise(outputs, inputs, nodes), len(nodes)

    def _graph(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return outputs and inputs with a graph between them."""
        return self.outputs, self._primals

    def _batched_by_engine(
        self, linear_map: LinearMap, loop_map: LinearMap, space: Sequence[Tensor]
    ) -> Apply:
        """Return the chosen engine for a linear map, with vmap as its plain engine.

        Args:
            linear_map: The map in a form that vmap can batch.
            loop_map: The map in its ordinary form.
            space: The tensors that a vector consists of.
        """
        plain = Batched(
            linear_map,
            loop_map,
            strategy=self.name,
            keep_graph=self._create_graph,
            report=self._report,
            precision=self.precision,
        )
        return self.engine.engine(loop_map, space, plain)
