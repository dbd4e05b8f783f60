"""The derivatives at many points of different sizes, as the rows of all points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import autodiff_core
from autodiff_core import Axis, Block, BlockStream, Fallback
from jobs.functions.curvature import Curvature
from jobs.functions.ragged import RaggedFunction, named_points
from jobs.machine.accelerator import seed_generators
from jobs.streams.curvature import (
    CurvatureStream,
    gauss_newton,
    has_curvature,
    require_curvature,
)
from jobs.streams.kept import Keeping
from jobs.streams.of_lines import LinesStream, lines_of_hessian
from jobs.streams.padded import PaddedStream
from jobs.streams.single import SingleStream
from jobs.streams.stream import PlainStream


class RaggedStream(Keeping, PaddedStream, PlainStream):
    """Blocks of rows of one point each; rows are padded with zeros to those of the widest point.

    Each point has a linearization of its own, which is kept for the next block of the same point.
    Forward mode computes a point's matrix whole.
    """

    def __init__(
        self, function: RaggedFunction, numbers: Tensor, *, seed: int, operation: str, strategy: str
    ) -> None:
        """Evaluate at all points, and linearize at the largest to learn what a block takes.

        Args:
            function: The function at all points.
            numbers: The numbers of all points.
            seed: The seed of torch's generators; that of a point is greater by its number.
            operation: ``jacobian``, ``hessian``, ``ggn`` or ``fisher``.
            strategy: A strategy of `autodiff_core`.

        Raises:
            JobError: The loss of a curvature matrix has no curvature in the outputs of any point.
        """
        self._points = named_points(function, numbers)
        self._function, self._seed = function, seed
        self._options: dict[str, Any] = {
            "operation": operation,
            "strategy": strategy,
            "engine": self.engine,
            "check_modes": False,
        }
        heights = function.heights
        Keeping.__init__(self)
        PaddedStream.__init__(self, heights, function.widths)
        # The times of evaluations measure the sizes of the points.
        _, seconds = function.outputs, function.seconds
        relative = sum(seconds) / max(seconds[self.largest], 1e-9)
        self.share = relative * heights[self.largest] / max(1, sum(heights))
        started = time.perf_counter()
        self._open = (self.largest, self._at(self.largest))
        self.opening_seconds = (time.perf_counter() - started) * relative
        largest = self._open[1]
        self.rows, self.columns, self.dtype = largest.rows, largest.columns, largest.dtype
        self.is_divisible = largest.axis is Axis.ROWS
        self.passes = largest.axis.lines(largest.shape)
        self.value: Any = function.value
        if isinstance(largest, CurvatureStream):
            self.fewest_worth_measuring = largest.fewest_worth_measuring
            require_curvature(largest.kind, self._are_curved())

    def block(self, start: int, stop: int) -> Block:
        """Return rows of one point, or of several; a block that is kept only once."""
        return self.taken(start, stop) or super().block(start, stop)

    def _within(self, number: int, start: int, stop: int) -> tuple[Tensor, tuple[Fallback, ...]]:
        if self._open[0] != number:
            self._open = (number, self._at(number))
        stream = self._open[1]
        if stream.axis is Axis.ROWS:
            block = stream.block(start, stop)
            return block.values, block.fallbacks
        if isinstance(stream, BlockStream):
            return stream.matrix()[start:stop], ()
        block = stream.block(0, stream.shape[1])
        return block.values[start:stop], block.fallbacks

    def _at(self, number: int) -> BlockStream | CurvatureStream | LinesStream:
        seed_generators(self._seed + number)
        call, point = self._function.points[number].call, self._points[number]
        tensors = point if isinstance(point, tuple) else (point,)
        seed, strategy = self._seed + number, self._options["strategy"]
        lines = None if self._function.lines is None else self._function.lines[number]
        if isinstance(call, Curvature):
            return CurvatureStream(call, tensors, seed, strategy, lines, may_be_zero=True)
        if lines is not None:
            return lines_of_hessian(call, tensors, lines, strategy, self._stream_of, None)
        return autodiff_core.blocks(call, point, **self._options)

    def _stream_of(self, gradient: Callable[..., Any], inputs: Any) -> SingleStream:
        options = {**self._options, "operation": "jacobian"}
        return SingleStream(autodiff_core.blocks(gradient, inputs, **options))

    def _are_curved(self) -> Iterator[bool]:
        generator = torch.Generator().manual_seed(self._seed)
        for number, point in enumerate(self._function.points):
            assert isinstance(point.call, Curvature)
            for _, term in point.call.curvature_terms():
                matrix = gauss_newton(term, point.call.base, self._seed + number)
                yield has_curvature(matrix, generator)
