"""The derivative of one function at one point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autodiff_core import Axis, AxisLayout, Block, BlockStream
from jobs.streams.kept import Keeping
from jobs.streams.stream import Recorder, Stream


class OverAnother:
    """What streams at one point have of the stream that computes for them."""

    unit = 1
    is_divisible = True
    _stream: BlockStream | Stream

    @property
    def engine(self) -> str:
        """The engine that computes the blocks; final after the first one."""
        return self._stream.engine

    @property
    def recorder(self) -> Recorder | None:
        """What lets the engine record; None where no engine could."""
        return self._stream.recorder

    @property
    def nodes(self) -> int:
        """The number of operators in the graph of the derivative."""
        return self._stream.nodes

    @property
    def engine_refusal(self) -> str | None:
        """Why the plain engine replaced another, in one line; None if it did not."""
        return self._stream.engine_refusal


class SingleStream(OverAnother, Keeping):
    """A `BlockStream` of `autodiff_core`, with what a `Stream` says of points and passes."""

    _stream: BlockStream

    def __init__(self, stream: BlockStream, kept: Iterable[Block] = ()) -> None:
        """Wrap a stream at a single point, with blocks of it that are computed already."""
        Keeping.__init__(self, kept)
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

    def block(self, start: int, stop: int) -> Block:
        """Return the lines start, ..., stop - 1; a block that is kept only once."""
        return self.taken(start, stop) or self._stream.block(start, stop)

    def waiting(self) -> AbstractContextManager[None]:
        """Let the plain engine compute in the body, whatever has been recorded."""
        recorder = self._stream.recorder
        return nullcontext() if recorder is None else recorder.waiting()

    def pulled(self, cotangent: Sequence[Tensor]) -> Pulled | None:
        """Return what `pulled_by` says."""
        linearized = self._stream.linearized
        linearization = linearized.linearization
        if linearization.axis is not Axis.ROWS or self.engine != "plain":
            return None
        outputs = linearization.outputs if linearized.operation.is_second_order else ()
        gradient = [each.detach() for each in outputs]
        return self.value, gradient, [*self._stream.pullback(cotangent)]

    def rows_by_symmetry(self) -> SingleStream:
        """Return the columns of a symmetric Hessian as rows.

        Raises:
            ValueError: The stream is not of a whole Hessian by columns.
        """
        kept = [replace(each, axis=Axis.ROWS) for each in self._blocks.values()]
        return SingleStream(self._stream.rows_by_symmetry(), kept)


Pulled = tuple[Any, list[Tensor], list[Tensor]]
"""A value, of second order the gradient, and the product of a cotangent with the derivative."""


def pulled_by(stream: Stream | None, cotangent: Sequence[Tensor]) -> Pulled | None:
    """Return a product by the graph from which a stream computes its rows, without an evaluation.

    Args:
        stream: The stream.
        cotangent: The vector from the left.

    Returns:
        None where the stream has no such graph, or another engine than the plain one computes.
    """
    if not isinstance(stream, SingleStream):
        return None
    return stream.pulled(cotangent)
