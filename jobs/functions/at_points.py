"""A function at many points of one size, each of which may have constants of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from jobs.functions.batch_sum import Halves
from jobs.functions.curvature import CurvatureTerm

# Makes a function of one point, or the term of its curvature matrix, of the constants there.
Make = Callable[[Mapping[str, Tensor]], Callable[..., Any]]
TermOf = Callable[[Mapping[str, Tensor]], CurvatureTerm]


class PointsFunction:
    """A function of a point, and of constants that differ from point to point.

    Called with a point alone it is the function at the first point.

    Attributes:
        constants: The constants that differ, each with a leading dimension over points.
        kind: ``ggn`` or ``fisher`` for a curvature matrix; None for the derivative of the function.
        base: The tensors of all points of the job.
        halves: Cuts the samples of the first point in halves, where the loss is to be compared.
    """

    def __init__(
        self,
        make: Make,
        constants: Mapping[str, Tensor],
        differing: Sequence[str],
        *,
        kind: str | None = None,
        term_of: TermOf | None = None,
        base: Sequence[Tensor] = (),
        halves: Callable[[], Halves | None] = lambda: None,
    ) -> None:
        """Keep the constants; nothing is evaluated yet.

        Args:
            make: Makes a function of one point, of its constants by name.
            constants: All constants.
            differing: The names of those with a leading dimension over points.
            kind: ``ggn`` or ``fisher`` for a curvature matrix.
            term_of: Makes the term of the curvature matrix at one point, of its constants.
            base: The tensors of all points of the job.
            halves: Cuts the samples of the first point in halves, as `BatchSum` takes it.
        """
        self.halves = halves
        self._make, self._term_of = make, term_of
        self._names = tuple(differing)
        self._shared = {name: each for name, each in constants.items() if name not in differing}
        self.constants = tuple(constants[name] for name in differing)
        self.kind = kind
        self.base = tuple(base)

    def __call__(self, *point: Tensor) -> Any:
        """Return the value at a point with the constants of the first."""
        return self.call(*point, *(each[0] for each in self.constants))

    def call(self, *tensors: Tensor) -> Any:
        """Return the value of the tensors of a point and, after them, its constants."""
        point, constants = self._split(tensors)
        return self._make(constants)(*point)

    def outputs(self, *tensors: Tensor) -> Tensor:
        """Return what the loss of a curvature matrix is a function of, likewise."""
        point, constants = self._split(tensors)
        term = self._term(constants)
        return term.outputs(*point, *term.data)

    def loss(self, outputs: Tensor, centre: Tensor, *constants: Tensor) -> Tensor:
        """Return the loss at a point, of its outputs, of those at the point of the job, and so on.

        Args:
            outputs: The outputs.
            centre: Those at the point of the job.
            constants: The constants of the point.
        """
        return self._term(self._named(constants)).loss(outputs, centre)

    def mapped(self, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> PointsFunction:
        """Return a changed function of each point."""
        changed, make = copy.copy(self), self._make
        changed._make = lambda constants: change(make(constants))
        return changed

    def _split(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Mapping[str, Tensor]]:
        split = len(tensors) - len(self._names)
        return tensors[:split], self._named(tensors[split:])

    def _named(self, constants: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return {**self._shared, **dict(zip(self._names, constants, strict=True))}

    def _term(self, constants: Mapping[str, Tensor]) -> CurvatureTerm:
        assert self._term_of is not None
        return self._term_of(constants)


def with_constants(function: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """Return a function of one point and its constants, and the constants of all points.

    Args:
        function: A function of one point, or a `PointsFunction`.
    """
    if isinstance(function, PointsFunction):
        return function.call, function.constants
    return function, ()
