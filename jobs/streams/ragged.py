"""The derivatives at many points of different sizes, as the rows of all points."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

import autodiff_core
from autodiff_core import Axis, BlockStream, Fallback
from jobs.functions.evaluation import evaluated
from jobs.functions.ragged import RaggedFunction, named_points
from jobs.machine.accelerator import seed_generators
from jobs.streams.padded import PaddedStream


class RaggedStream(PaddedStream):
    """Blocks of rows of one point each; rows are padded with zeros to those of the widest point.

    Each point has a linearization of its own, which is kept for the next block of the same point.
    Forward mode computes a point's matrix whole.
    """

    engine = "plain"
    engine_refusal = None
    recorder = None
    nodes = 0

    def __init__(
        self, function: RaggedFunction, numbers: Tensor, *, seed: int, operation: str, strategy: str
    ) -> None:
        """Evaluate at all points, and linearize at the largest to learn what a block takes.

        Args:
            function: The function at all points.
            numbers: The numbers of all points.
            seed: The seed of torch's generators; that of a point is greater by its number.
            operation: ``jacobian`` or ``hessian``.
            strategy: A strategy of `autodiff_core`.
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
        super().__init__(heights, function.widths)
        # The times of evaluations measure the sizes of the points.
        _, seconds = function.outputs, function.seconds
        relative = sum(seconds) / max(seconds[self.largest], 1e-9)
        self.share = relative * heights[self.largest] / max(1, sum(heights))
        started = time.perf_counter()
        self._kept = (self.largest, self._at(self.largest))
        self.opening_seconds = (time.perf_counter() - started) * relative
        largest = self._kept[1]
        self.rows, self.columns, self.dtype = largest.rows, largest.columns, largest.dtype
        self.is_divisible = largest.axis is Axis.ROWS
        self.passes = largest.axis.lines(largest.shape)
        self.value: Any = evaluated(function, [numbers], seed).detach()

    def _within(self, number: int, start: int, stop: int) -> tuple[Tensor, tuple[Fallback, ...]]:
        if self._kept[0] != number:
            self._kept = (number, self._at(number))
        stream = self._kept[1]
        if self.is_divisible:
            block = stream.block(start, stop)
            return block.values, block.fallbacks
        return stream.matrix()[start:stop], ()

    def _at(self, number: int) -> BlockStream:
        seed_generators(self._seed + number)
        call = self._function.points[number].call
        return autodiff_core.blocks(call, self._points[number], **self._options)
