"""A part of a matrix as the derivative of a smaller function.

Selected columns are the derivative with respect to some elements of the point, the others being
constants; selected rows are the derivative of some elements of what the function returns. So
planning, verification, shards, devices and sparsity meet a function like any other. Of a Hessian
the smaller point has the elements of all selected rows and columns; where these are not the same,
`Lines` says which lines of that smaller Hessian are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError
from jobs.functions.at_points import PointsFunction
from jobs.functions.batch_sum import BatchSum
from jobs.functions.curvature import Curvature
from jobs.functions.elements import Filling, Lines, elements_of, gradient_of
from jobs.functions.evaluation import evaluated
from jobs.functions.failures import explaining_failures
from jobs.functions.loading import LoadedFunction
from jobs.functions.parts_at_points import ElementsAtPoints
from jobs.functions.ragged import RaggedFunction
from jobs.functions.returned_values import named_outputs
from jobs.functions.selections import AxisTensor, SelectedAxis, selected_axis
from jobs.functions.variables import Variables
from jobs.operations import OPERATIONS

_Function = Callable[..., object]


@dataclass(frozen=True)
class Part:
    """The part of a matrix that a job computes.

    Attributes:
        rows: The selected rows of the whole matrix.
        columns: The selected columns of the whole matrix.
        whole: The function of the whole point.
        point: The whole point.
        function: The function of the selected elements.
        selected: The selected elements of the point, by the names of their tensors.
        lines: Which lines of its Hessian are computed; None where all are.
    """

    rows: SelectedAxis
    columns: SelectedAxis
    whole: LoadedFunction
    point: dict[str, Tensor]
    function: LoadedFunction
    selected: dict[str, Tensor]
    lines: Lines | None = None

    @property
    def whole_shape(self) -> tuple[int, int]:
        """(rows, columns) of the whole matrix, of one point."""
        return self.rows.size, self.columns.size

    def choices(self) -> dict[str, str]:
        """Return what the fingerprint covers of the selection."""
        axes = {"rows": self.rows, "columns": self.columns}
        return {name: axis.digest for name, axis in axes.items() if not axis.is_whole}


def part_of(config: JobConfig, variables: Variables) -> Part | None:
    """Return the part of the matrix that the options select; None for the whole matrix.

    Args:
        config: The options.
        variables: The function with its whole point.

    Raises:
        ConfigurationError: The selection does not fit the matrix, or is of all its lines.
    """
    if config.rows is None and config.columns is None:
        return None
    if isinstance(variables.function.function, RaggedFunction):
        raise ConfigurationError(
            f"rows={config.rows} points={config.points.by}: the points have matrices of different "
            "sizes; lines are selected where all have the same"
        )
    inputs = _axis_tensors(variables.point, leading=int(config.points.are_many))
    is_second_order = OPERATIONS[config.op].is_second_order
    outputs = inputs
    if not is_second_order and config.rows is not None:
        outputs = _axis_tensors(_outputs(config, variables))
    rows = selected_axis("rows", config.rows, outputs, config.seed)
    columns = selected_axis("columns", config.columns, inputs, config.seed)
    if columns.is_whole and (config.rows is None or rows.is_whole):
        return None
    if is_second_order:
        return _part_of_hessian(config, variables, rows, columns)
    function, point = _of_elements(config, variables, columns)
    if config.rows is None:
        rows = selected_axis("rows", None, _axis_tensors(_outputs(config, variables)), config.seed)
    elif not rows.is_whole:
        function = _with_rows(function, rows)
    return Part(rows, columns, variables.function, variables.point, function, point)


def gradient(function: _Function, point: Sequence[Tensor], lines: Lines) -> _Function:
    """Return the gradient of a function, of selected elements and by selected elements.

    Args:
        function: A scalar function of the point, or a sum of such.
        point: The point.
        lines: The elements of the gradient, as rows, and of the point, as columns.

    Returns:
        A function of the selected columns, which returns the selected rows: a tuple of tensors.
    """
    fill = _fill(point, lines.columns)
    return _mapped(function, lambda term: gradient_of(term, fill, lines.rows))


def _part_of_hessian(
    config: JobConfig, variables: Variables, rows: SelectedAxis, columns: SelectedAxis
) -> Part:
    both = np.union1d(rows.numbers, columns.numbers)
    union = SelectedAxis.of(columns.whole, both)
    function, point = _of_elements(config, variables, union)
    lines = None
    if not np.array_equal(rows.numbers, columns.numbers):
        conflicts = {
            f"dtype={config.dtype}": any(tensor.is_complex() for tensor in point.values()),
            f"verify={config.verify.mode}": config.verify.mode == "sample",
            f"sparsity={config.sparsity}": config.sparsity != "none",
        }
        for option, is_conflict in conflicts.items():
            if is_conflict:
                raise ConfigurationError(
                    f"op={config.op} {option}: rows= and columns= select other lines, and go with "
                    "real dtypes, verify=probe or off and sparsity=none; the same in both go with "
                    "all"
                )
        inside = _axis_tensors(point, leading=int(config.points.are_many))
        of_rows, of_columns = (
            SelectedAxis.of(inside, np.searchsorted(both, axis.numbers)) for axis in (rows, columns)
        )
        lines = Lines(of_rows, of_columns)
    return Part(rows, columns, variables.function, variables.point, function, point, lines)


def _outputs(config: JobConfig, variables: Variables) -> dict[str, Tensor]:
    function, point = variables.function, list(variables.point.values())
    if config.points.are_many:
        point = [tensor[0] for tensor in point]
    with explaining_failures(function):
        value = evaluated(function.function, point, config.seed)
    return named_outputs(function, value)


def _axis_tensors(tensors: Mapping[str, Tensor], leading: int = 0) -> list[AxisTensor]:
    return [
        AxisTensor(name, tuple(tensor.shape[leading:]), tensor.dtype)
        for name, tensor in tensors.items()
    ]


def _of_elements(
    config: JobConfig, variables: Variables, columns: SelectedAxis
) -> tuple[LoadedFunction, dict[str, Tensor]]:
    """Return a function of selected elements of its point, or of each point, and these elements."""
    function, point = variables.function, variables.point
    if columns.is_whole:
        return function, point
    tensors = list(point.values())
    names = tuple(part.tensor.name for part in columns.parts)
    if config.points.are_many:
        at_points = ElementsAtPoints(function.function, tensors, columns)
        selected = dict(zip(names, at_points.base, strict=True))
        return replace(function, function=at_points, arguments=names), selected
    fill = _fill(tensors, columns)
    selected = dict(zip(names, elements_of(tensors, columns), strict=True))
    if isinstance(function.function, Curvature):
        width = sum(tensors[part.position].numel() for part in columns.parts)
        call = function.function.of_some(fill, tuple(selected.values()), width)
    else:
        call = _mapped(function.function, lambda term: lambda *given: term(*fill(*given)))
    return replace(function, function=call, arguments=names), selected


def _with_rows(function: LoadedFunction, rows: SelectedAxis) -> LoadedFunction:
    """Return a function of which only selected elements of the values are left."""

    def changed(term: _Function) -> _Function:
        def call(*point: Tensor) -> object:
            value = term(*point)
            leaves = list(named_outputs(function, value).values())
            found = elements_of(leaves, rows)
            names = (part.tensor.name for part in rows.parts)
            return found[0] if isinstance(value, Tensor) else dict(zip(names, found, strict=True))

        return call

    names = tuple(part.tensor.name for part in rows.parts)
    return replace(function, function=_mapped(function.function, changed), outputs=names)


def _fill(point: Sequence[Tensor], columns: SelectedAxis) -> Callable[..., list[Tensor]]:
    """Return what puts selected elements into a point whose other elements are constants."""
    constants = [tensor.detach() for tensor in point]
    fill = Filling(columns, constants[0].device)
    return lambda *elements: fill(constants, elements)


def _mapped(function: _Function, change: Callable[[_Function], _Function]) -> _Function:
    """Return a changed function; of a sum over batches the sum of its changed terms."""
    is_of_several = isinstance(function, BatchSum | PointsFunction)
    return function.mapped(change) if is_of_several else change(function)
