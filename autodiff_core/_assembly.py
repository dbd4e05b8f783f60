"""Assemble blocks in memory, in the shapes that `torch.autograd.functional` returns."""

from __future__ import annotations

import torch
from torch import Tensor

from autodiff_core._block import Axis
from autodiff_core._stream import BlockStream


def assemble(stream: BlockStream) -> list[list[Tensor]]:
    """Return the whole derivative, tensor by tensor.

    Args:
        stream: A stream of all rows and columns of a matrix.

    Returns:
        For each tensor along the rows a list with, for each tensor along the columns, a tensor
        of shape row_tensor.shape + column_tensor.shape, with a leading dimension over points
        where there are many.
    """
    entries = [
        [_Entry(stream, row, column) for column in range(len(stream.columns.shapes))]
        for row in range(len(stream.rows.shapes))
    ]
    along = stream.rows if stream.axis is Axis.ROWS else stream.columns
    for block in stream:
        for index, first, last in along.overlaps(block.start, block.stop):
            offset = along.offsets[index] - block.start
            for number, piece in enumerate(block.pieces):
                row, column = (index, number) if stream.axis is Axis.ROWS else (number, index)
                entries[row][column].add(first, piece[offset + first : offset + last])
    return [[entry.natural() for entry in line] for line in entries]


class _Entry:
    """The derivative of one output tensor in one input tensor, filled block by block."""

    def __init__(self, stream: BlockStream, row: int, column: int) -> None:
        linearized = stream.linearized
        outputs, inputs = linearized.linearization.outputs, linearized.primals
        self._shape = (*stream.rows.shapes[row], *stream.columns.shapes[column])
        self._sizes = (
            torch.Size(stream.rows.shapes[row]).numel(),
            torch.Size(stream.columns.shapes[column]).numel(),
        )
        self._leading = () if stream.points is None else (stream.points,)
        self._is_by_rows = stream.axis is Axis.ROWS
        self._keep_graph = linearized.keep_graph
        # The dtype and device are those of the tensor at which a pullback or pushforward arrives.
        self._like = inputs[column] if self._is_by_rows else outputs[row]
        self._is_real = not (outputs[row].is_complex() or inputs[column].is_complex())
        self._parts: list[Tensor] = []
        self._buffer: Tensor | None = None

    def add(self, first: int, lines: Tensor) -> None:
        """Add lines of shape (count, elements) or (count, points, elements)."""
        if self._is_real and lines.is_complex():
            # A block that covers complex tensors as well is complex in all its pieces.
            lines = lines.real
        count = len(lines)
        if self._leading:
            lines = lines.transpose(0, 1)
        if not self._is_by_rows:
            lines = lines.transpose(-1, -2)
        length = self._sizes[0 if self._is_by_rows else 1]
        if self._keep_graph or count == length:
            self._parts.append(lines)
            return
        if self._buffer is None:
            self._buffer = lines.new_empty((*self._leading, *self._sizes))
        dimension = -2 if self._is_by_rows else -1
        self._buffer.narrow(dimension, first, count).copy_(lines)

    def natural(self) -> Tensor:
        """Return the derivative in the shape output.shape + input.shape."""
        if self._buffer is not None:
            whole = self._buffer
        elif self._parts:
            whole = torch.cat(self._parts, -2 if self._is_by_rows else -1)
        else:
            whole = self._like.detach().new_zeros(())
            whole = whole.expand((*self._leading, *self._sizes))
        return whole.reshape((*self._leading, *self._shape))
