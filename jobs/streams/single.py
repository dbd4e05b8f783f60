"""The derivative of one function at one point."""

from __future__ import annotations

from typing import Any

import torch

from autodiff_core import Axis, AxisLayout, Block, BlockStream


class SingleStream:
    """A `BlockStream` of `autodiff_core`, with what a `Stream` says of points and passes."""

    unit = 1
    is_divisible = True

    def __init__(self, stream: BlockStream) -> None:
        """Wrap a stream at a single point."""
        self._stream = stream

    @property
    def axis(self) -> Axis:
        """The axis along which the blocks follow one another."""
        return self._stream.axis

    @property
    def rows(self) -> AxisLayout:
        """The tensors along the rows."""
        return self._stream.rows

    @property
    def columns(self) -> AxisLayout:
        """The tensors along the columns."""
        return self._stream.columns

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrix."""
        return self._stream.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self._stream.shape

    @property
    def value(self) -> Any:
        """The function's value at the point."""
        return self._stream.value

    @property
    def passes(self) -> int:
        """One for each line."""
        return self.axis.lines(self.shape)

    @property
    def engine(self) -> str:
        """The engine that computes the blocks; final after the first one."""
        return self._stream.engine

    @property
    def engine_refusal(self) -> str | None:
        """Why the plain engine computes although another was tried; None if not refused."""
        return self._stream.engine_refusal

    def block(self, start: int, stop: int) -> Block:
        """Compute the lines start, ..., stop - 1."""
        return self._stream.block(start, stop)

    def rows_by_symmetry(self) -> SingleStream:
        """Return the columns of a symmetric Hessian as rows.

        Raises:
            ValueError: The stream is not of a whole Hessian by columns.
        """
        return SingleStream(self._stream.rows_by_symmetry())
