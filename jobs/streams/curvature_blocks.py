"""The diagonal blocks of a curvature matrix, as the rows of all blocks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import torch
from torch import Tensor

from autodiff_core import Axis, AxisLayout, Block
from jobs.functions.blocks import BlocksFunction
from jobs.functions.curvature import Curvature
from jobs.streams.curvature import CurvatureStream
from jobs.streams.padded import PaddedStream
from jobs.streams.stream import PlainStream


class CurvatureBlocksStream(PaddedStream, PlainStream):
    """Rows of diagonal blocks, padded with zeros to those of the widest.

    Rows of several blocks take one pass over the data: the Jacobian of the outputs is formed for
    the tensors of these blocks together, and each block multiplies its own columns.
    """

    is_divisible = True
    is_joint = True

    def __init__(self, function: BlocksFunction, seed: int, strategy: str) -> None:
        """Evaluate the loss, and look at its first batch.

        Args:
            function: The loss as a function of the tensors of each block.
            seed: The seed of torch's generators; each batch uses it plus its number.
            strategy: The strategy.

        Raises:
            JobError: The loss has no curvature in the outputs.
        """
        super().__init__(function.widths, function.widths)
        self.unit = 1
        self._function = function
        self._whole = CurvatureStream(*self._of_blocks(0, len(function.blocks) - 1), seed, strategy)
        _, tensors = function.term(self.largest)
        self.rows = self.columns = AxisLayout.of(tensors)
        self.dtype, self.value, self.passes = self._whole.dtype, self._whole.value, self.rows.size
        self.fewest_worth_measuring = self._whole.fewest_worth_measuring

    def block(self, start: int, stop: int) -> Block:
        """Compute rows, perhaps of several diagonal blocks.

        Args:
            start: The first row, counted over all blocks.
            stop: One past the last.
        """
        return self._block(start, stop, is_share=False)[0]

    def block_of_a_share(self, start: int, stop: int) -> tuple[Block, float]:
        """Compute rows of some of the data, which takes that share of the time, and the share."""
        return self._block(start, stop, is_share=True)

    def _block(self, start: int, stop: int, *, is_share: bool) -> tuple[Block, float]:
        first, last = bisect_right(self.bounds, start) - 1, bisect_left(self.bounds, stop) - 1
        total = self._whole.zeros(stop - start, self.shape[1])
        parts = [self._part(number, start, stop, first, total) for number in range(first, last + 1)]
        function, tensors = self._of_blocks(first, last)
        fallbacks, share = self._whole.add_parts(function, tensors, parts, is_share=is_share)
        values = (total.to(self.dtype),)
        return Block(Axis.ROWS, start, stop, values, self.dtype, fallbacks), share

    def _part(
        self, number: int, start: int, stop: int, first: int, total: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows and columns of a block in the matrix from a first one on, and their sum.

        Args:
            number: The number of the block.
            start: The first row that is computed, counted over all blocks.
            stop: One past the last.
            first: The number of the first block of these.
            total: The sum of all rows that are computed.
        """
        begin, end = self.bounds[number : number + 2]
        lines = range(max(start, begin), min(stop, end))
        rows, columns = (
            torch.arange(each.start, each.stop, device=total.device) - self.bounds[first]
            for each in (lines, range(begin, end))
        )
        return rows, total[lines.start - start : lines.stop - start, : end - begin], columns

    def _of_blocks(self, first: int, last: int) -> tuple[Curvature, tuple[Tensor, ...]]:
        function, tensors = self._function.term(first, last)
        assert isinstance(function, Curvature)
        # Copies: a function may work in place on its arguments.
        return function, tuple(tensor.clone() for tensor in tensors)
