"""Rows of matrices of different sizes as those of one, padded with zeros to the widest."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from autodiff_core import Axis, AxisLayout, Block, Fallback


class PaddedStream:
    """Blocks of rows of several matrices, those of one after another's.

    The attributes are those of a `Stream`; the layouts are those of the largest matrix.

    Attributes:
        bounds: Where the rows of each matrix begin, and where the last ones end.
        largest: The number of the largest matrix.
        share: The mean time of a row relative to that of a row of the largest matrix.
        opening_seconds: The time to open all matrices, as far as the times of evaluations tell.
        fewest_worth_measuring: The number of rows that take as long as fewer.
        is_joint: Whether rows of several matrices can be computed together.
    """

    axis = Axis.ROWS
    rows: AxisLayout
    columns: AxisLayout
    dtype: torch.dtype
    is_divisible: bool
    passes: int
    value: Any
    share = 1.0
    opening_seconds = 0.0
    fewest_worth_measuring = 1
    is_joint = False

    def __init__(self, heights: Sequence[int], widths: Sequence[int]) -> None:
        """Keep the sizes.

        Args:
            heights: The number of rows of each matrix.
            widths: The number of columns.
        """
        self.bounds = (0, *accumulate(heights))
        sizes = [height * width for height, width in zip(heights, widths, strict=True)]
        self.largest = sizes.index(max(sizes))
        self.unit = max(heights)
        self.shape = (self.bounds[-1], max(widths))

    def block(self, start: int, stop: int) -> Block:
        """Compute rows of one matrix, or of several.

        Args:
            start: The first row, counted over all matrices.
            stop: One past the last.
        """
        parts: list[Tensor] = []
        fallbacks: dict[str, Fallback] = {}
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

    @abstractmethod
    def _within(self, number: int, start: int, stop: int) -> tuple[Tensor, tuple[Fallback, ...]]:
        """Compute rows of one matrix."""
