"""The diagonal blocks of a Hessian, as the rows of all blocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from autodiff_core import Axis, Block, Fallback
from jobs.functions.blocks import BlocksFunction
from jobs.streams.padded import PaddedStream
from jobs.streams.stream import Stream

# Opens the matrix of a function at a point.
_Open = Callable[[Callable[..., Any], Any], Stream]


class BlocksStream(PaddedStream):
    """Rows of one diagonal block each, padded with zeros to those of the widest.

    Each block is the matrix of a function of its own tensors, whose linearization is kept for the
    next rows of the same block. Columns of forward mode are its rows, by symmetry, which is not
    assumed: the check compares each row with a product of the block from the right.
    """

    is_divisible = True

    def __init__(self, function: BlocksFunction, open_stream: _Open) -> None:
        """Open the largest block to learn what its rows take.

        Args:
            function: The function of each block.
            open_stream: Opens the matrix of a function at a point.
        """
        self._function, self._open = function, open_stream
        super().__init__(function.widths, function.widths)
        self._waits = False
        started = time.perf_counter()
        self._kept = (self.largest, self._at(self.largest))
        self.opening_seconds = (time.perf_counter() - started) * len(function.blocks)
        largest = self._kept[1]
        self.rows, self.columns, self.dtype = largest.rows, largest.columns, largest.dtype
        self.passes, self.value = largest.passes, largest.value

    @property
    def engine(self) -> str:
        """The engine that computes the rows of the block in use."""
        return self._kept[1].engine

    @property
    def recorder(self) -> BlocksStream | None:
        """This stream, which lets each block record; None where no engine could."""
        return None if self._kept[1].recorder is None else self

    @property
    def nodes(self) -> int:
        """The number of operators in the graph of the block in use."""
        return self._kept[1].nodes

    def record(self, records: bool) -> None:
        """Let the engine record each block from its next rows on, or no longer."""
        self._waits = not records
        self._let_record(self._kept[1])

    @property
    def engine_refusal(self) -> str | None:
        """Why the plain engine replaced another there, in one line; None if it did not."""
        return self._kept[1].engine_refusal

    def _within(self, number: int, start: int, stop: int) -> tuple[Tensor, tuple[Fallback, ...]]:
        block = self._stream(number).block(start, stop)
        rows = Block(Axis.ROWS, start, stop, block.pieces, block.dtype)
        return rows.values, block.fallbacks

    def _stream(self, number: int) -> Stream:
        if self._kept[0] != number:
            self._kept = (number, self._at(number))
        return self._kept[1]

    def _at(self, number: int) -> Stream:
        function, tensors = self._function.term(number)
        # Copies: a function may work in place on its arguments.
        given = tuple(tensor.clone() for tensor in tensors)
        stream = self._open(function, given[0] if len(given) == 1 else given)
        self._let_record(stream)
        return stream

    def _let_record(self, stream: Stream) -> None:
        if stream.recorder is not None:
            stream.recorder.record(not self._waits)
