"""A part of a matrix as the derivative of a smaller function.

Selected columns are the derivative with respect to some elements of the point, the others being
constants; selected rows are the derivative of some elements of what the function returns. So
planning, verification, shards, devices and sparsity meet a function like any other. Of a Hessian
the smaller point has the elements of all selected rows and columns; where these are not the same,
`Lines` says which lines of that smaller Hessian are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError
from jobs.functions.elements import filled, gradient_of, mapped, of_elements, with_rows
from jobs.functions.evaluation import evaluated
from jobs.functions.failures import explaining_failures
from jobs.functions.loading import LoadedFunction
from jobs.functions.part import Lines, Part
from jobs.functions.parts_at_points import ElementsAtPoints
from jobs.functions.ragged import RaggedFunction
from jobs.functions.ragged_parts import part_of_ragged
from jobs.functions.returned_values import named_outputs
from jobs.functions.selections import AxisTensor, SelectedAxis, selected_axis
from jobs.functions.variables import Variables
from jobs.operations import OPERATIONS

_Function = Callable[..., object]


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
    if isinstance(ragged := variables.function.function, RaggedFunction):
        return part_of_ragged(config, variables, ragged)
    inputs = _axis_tensors(variables.point, leading=int(config.points.are_many))
    is_second_order = OPERATIONS[config.op].is_second_order
    outputs = inputs
    if not is_second_order and config.rows is not None:
        outputs = _axis_tensors(outputs_at_point(config, variables))
    rows = selected_axis("rows", config.rows, outputs, config.seed)
    columns = selected_axis("columns", config.columns, inputs, config.seed)
    if columns.is_whole and (config.rows is None or rows.is_whole):
        return None
    if is_second_order:
        return _part_of_hessian(config, variables, rows, columns)
    function, point = _of_elements(config, variables, columns)
    if config.rows is None:
        outputs = _axis_tensors(outputs_at_point(config, variables))
        rows = selected_axis("rows", None, outputs, config.seed)
    elif not rows.is_whole:
        function = with_rows(function, rows)
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
    fill = filled(point, lines.columns)
    return mapped(function, lambda term: gradient_of(term, fill, lines.rows))


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


def outputs_at_point(config: JobConfig, variables: Variables) -> dict[str, Tensor]:
    """Return what the function returns at the point, of many at the first, by name."""
    function, point = variables.function, list(variables.point.values())
    if config.points.are_many:
        point = [tensor[0] for tensor in point]
    with explaining_failures(function):
        value = evaluated(function.function, point, config.seed)
    return {name: each.detach() for name, each in named_outputs(function, value).items()}


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
    call, elements = of_elements(function.function, tensors, columns)
    selected = dict(zip(names, elements, strict=True))
    return replace(function, function=call, arguments=names), selected
