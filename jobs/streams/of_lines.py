"""Some rows and columns of a Hessian, by the axis that takes fewer passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from autodiff_core import Axis, Block
from jobs.functions.elements import elements_of
from jobs.functions.part import Lines
from jobs.functions.parts import gradient
from jobs.functions.parts_at_points import GradientAtPoints
from jobs.strategies import FORWARD
from jobs.streams.at_points import PointStream, values_of_points
from jobs.streams.single import OverAnother
from jobs.streams.stream import Stream


class LinesStream(OverAnother):
    """A part of a Hessian whose rows and columns are not the same, as blocks.

    It is the derivative of the gradient's selected rows by the selected columns. Because a Hessian
    is symmetric, it is also the transpose of the part with rows and columns exchanged; of the two
    the one is computed that has fewer passes. That the Hessian is symmetric is not assumed: the
    products of the check are those of the part itself. The attributes are those of a `Stream`.
    """

    def __init__(self, stream: Stream, value: Any, *, is_transposed: bool) -> None:
        """Wrap the stream of the gradient's derivative.

        Args:
            stream: The stream; of the transposed part where `is_transposed` is set.
            value: The function's value.
            is_transposed: Whether its rows are the columns of the part.
        """
        self._stream = stream
        self.value = value
        self.dtype = stream.dtype
        self.passes = stream.passes
        sides, shape = (stream.rows, stream.columns), stream.shape
        self.rows, self.columns = sides[::-1] if is_transposed else sides
        self.shape: tuple[int, int] = (shape[1], shape[0]) if is_transposed else shape
        is_by_rows = (stream.axis is Axis.ROWS) is not is_transposed
        self.axis = Axis.ROWS if is_by_rows else Axis.COLUMNS

    def block(self, start: int, stop: int) -> Block:
        """Compute the lines start, ..., stop - 1."""
        found = self._stream.block(start, stop)
        return Block(self.axis, start, stop, found.pieces, found.dtype, found.fallbacks)

    def rows_by_symmetry(self) -> None:
        """Return None: the part is not symmetric."""


def is_transposed(lines: Lines, strategy: str) -> bool:
    """Return whether the transposed part takes fewer passes by a strategy."""
    rows, columns = len(lines.rows.numbers), len(lines.columns.numbers)
    return rows < columns if strategy in FORWARD else columns < rows


def lines_of_hessian(
    function: Callable[..., Any],
    point: Sequence[Tensor],
    lines: Lines,
    strategy: str,
    open_stream: Callable[[Callable[..., Any], Any], Stream],
    value: Any,
) -> LinesStream:
    """Open the blocks of some lines of a Hessian.

    Args:
        function: The scalar function, or a sum of such.
        point: The point.
        lines: The rows and columns.
        strategy: The strategy.
        open_stream: Opens the Jacobian of a function at a point.
        value: The function's value.
    """
    turned = is_transposed(lines, strategy)
    of = Lines(lines.columns, lines.rows) if turned else lines
    selected = tuple(torch.clone(each) for each in elements_of(point, of.columns))
    inputs = selected[0] if len(selected) == 1 else selected
    return LinesStream(
        open_stream(gradient(function, point, of), inputs), value, is_transposed=turned
    )


def lines_at_points(
    function: Callable[..., Any],
    point: Sequence[Tensor],
    lines: Lines,
    strategy: str,
    seed: int,
) -> PointStream:
    """Open the blocks of some lines of a Hessian at each of many points.

    Args:
        function: The scalar function of one point, or a `PointsFunction`.
        point: The tensors of all points.
        lines: The rows and columns.
        strategy: The strategy.
        seed: The seed of torch's generators.
    """
    turned = is_transposed(lines, strategy)
    gradients = GradientAtPoints(
        function, point, Lines(lines.columns, lines.rows) if turned else lines
    )
    return PointStream(
        gradients,
        gradients.base,
        seed=seed,
        operation="jacobian",
        strategy=strategy,
        value=values_of_points(function, point, seed),
        is_transposed=turned,
    )
