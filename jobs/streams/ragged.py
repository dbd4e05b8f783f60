"""The derivatives at many points of different sizes, as the rows of all points."""

from __future__ import annotations

import time
from bisect import bisect_right
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

import autodiff_core
from autodiff_core import Axis, AxisLayout, Block, BlockStream
from jobs.functions.evaluation import evaluated
from jobs.functions.ragged import RaggedFunction, named_points


class RaggedStream:
    """Blocks of rows of one point each; rows are padded with zeros to those of the widest point.

    Each point has a linearization of its own, which is kept for the next block of the same point.
    Forward mode computes a point's matrix whole. The attributes are those of a `Stream`; the
    layouts are those of the largest point. `share` is the mean time of a row relative to that of a
    row of the largest point, and `opening_seconds` the time to linearize at all points, as far as
    the times of evaluations tell.
    """

    axis = Axis.ROWS
    engine = "plain"
    engine_refusal = None

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
        widths = [point.width for point in function.points]
        self.bounds = (0, *accumulate(heights))
        sizes = [height * width for height, width in zip(heights, widths, strict=True)]
        self.largest = sizes.index(max(sizes))
        # The times of evaluations measure the sizes of the points.
        _, seconds = function.outputs, function.seconds
        relative = sum(seconds) / max(seconds[self.largest], 1e-9)
        self.share = relative * heights[self.largest] / max(1, sum(heights))
        started = time.perf_counter()
        self._kept = (self.largest, self._at(self.largest))
        self.opening_seconds = (time.perf_counter() - started) * relative
        largest = self._kept[1]
        self.rows: AxisLayout = largest.rows
        self.columns: AxisLayout = largest.columns
        self.dtype = largest.dtype
        self.is_divisible = largest.axis is Axis.ROWS
        self.unit = max(heights)
        self.passes = largest.axis.lines(largest.shape)
        self.shape = (self.bounds[-1], max(widths))
        self.value: Any = evaluated(function, [numbers], seed).detach()

    def block(self, start: int, stop: int) -> Block:
        """Compute rows of one point, or of several.

        Args:
            start: The first row, counted over all points.
            stop: One past the last.
        """
        parts: list[Tensor] = []
        fallbacks: dict[str, Any] = {}
        first = start
        while first < stop:
            number = bisect_right(self.bounds, first) - 1
            last = min(stop, self.bounds[number + 1])
            values, found = self._within(
                number, first - self.bounds[number], last - self.bounds[number]
            )
            fallbacks.update({str(each): each for each in found})
            padding = (0, self.shape[1] - values.shape[1])
            parts.append(torch.nn.functional.pad(values, padding) if padding[1] else values)
            first = last
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        return Block(Axis.ROWS, start, stop, (whole,), self.dtype, tuple(fallbacks.values()))

    def rows_by_symmetry(self) -> None:
        """Return None: the blocks are of rows already."""

    def _within(self, number: int, start: int, stop: int) -> tuple[Tensor, tuple[Any, ...]]:
        if self._kept[0] != number:
            self._kept = (number, self._at(number))
        stream = self._kept[1]
        if self.is_divisible:
            block = stream.block(start, stop)
            return block.values, block.fallbacks
        return stream.matrix()[start:stop], ()

    def _at(self, number: int) -> BlockStream:
        torch.manual_seed(self._seed + number)
        call = self._function.points[number].call
        return autodiff_core.blocks(call, self._points[number], **self._options)
