"""Parts of matrices at many points of one size, by the elements of each point."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from jobs.functions.at_points import PointsFunction, with_constants
from jobs.functions.elements import Filling, elements_of, gradient_of
from jobs.functions.part import Lines
from jobs.functions.selections import SelectedAxis


class ElementsAtPoints(PointsFunction):
    """A function of selected elements of a point; its other elements are constants of that point.

    The attributes are those of a `PointsFunction`; the last of the constants are the tensors of all
    points.
    """

    def __init__(
        self, function: Callable[..., Any], point: Sequence[Tensor], columns: SelectedAxis
    ) -> None:
        """Keep the points; nothing is evaluated yet.

        Args:
            function: The function of one whole point, or a `PointsFunction`.
            point: The tensors of all points.
            columns: The selected elements, the same at each point.
        """
        self._function = function
        _, constants = with_constants(function)
        self.constants = (*constants, *point)
        self.kind = function.kind if isinstance(function, PointsFunction) else None
        self.base = elements_of(point, columns, leading=1)
        self._count, self._whole = len(columns.parts), len(point)
        self._fill = Filling(columns, point[0].device)
        # The loss of the whole point is no function of selected elements alone.
        self.halves = lambda: None

    def call(self, *tensors: Tensor) -> Any:
        """Return the value of selected elements and, after them, the constants of a point."""
        return with_constants(self._function)[0](*self._filled(tensors))

    def outputs(self, *tensors: Tensor) -> Tensor:
        """Return what the loss of a curvature matrix is a function of, likewise."""
        assert isinstance(self._function, PointsFunction)
        return self._function.outputs(*self._filled(tensors))

    def loss(self, outputs: Tensor, centre: Tensor, *constants: Tensor) -> Tensor:
        """Return the loss at a point, of its outputs, those at the job's point, and constants."""
        assert isinstance(self._function, PointsFunction)
        return self._function.loss(outputs, centre, *constants[: -self._whole])

    def mapped(self, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> PointsFunction:
        """Return a changed function of each whole point, of the same elements."""
        changed, function = copy.copy(self), self._function
        is_of_points = isinstance(function, PointsFunction)
        changed._function = function.mapped(change) if is_of_points else change(function)
        return changed

    def _filled(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the whole point, and the constants of the function."""
        elements, constants = tensors[: self._count], tensors[self._count :]
        whole = constants[-self._whole :]
        return [*self._fill(whole, elements), *constants[: -self._whole]]


class GradientAtPoints(ElementsAtPoints):
    """Selected rows of the gradient of a scalar function, as a function of selected columns."""

    def __init__(self, function: Callable[..., Any], point: Sequence[Tensor], lines: Lines) -> None:
        """Keep the points; nothing is evaluated yet.

        Args:
            function: The scalar function of one point, or a `PointsFunction`.
            point: The tensors of all points.
            lines: The elements of the gradient, as rows, and of the point, as columns.
        """
        super().__init__(function, point, lines.columns)
        self._rows = lines.rows

    def call(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of the gradient of the columns and, after them, constants of a point."""
        elements, constants = tensors[: self._count], tensors[self._count :]
        rest, whole = constants[: -self._whole], constants[-self._whole :]
        call, _ = with_constants(self._function)
        gradient = gradient_of(
            lambda *point: call(*point, *rest),
            lambda *elements: self._fill(whole, elements),
            self._rows,
        )
        return gradient(*elements)
