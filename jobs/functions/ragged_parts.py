"""Parts of matrices at many points of different sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError
from jobs.functions.elements import of_elements, with_rows
from jobs.functions.part import Lines, Part
from jobs.functions.ragged import ALL_POINTS, AtPoint, RaggedFunction
from jobs.functions.selections import AxisTensor, SelectedAxis, selected_axis
from jobs.functions.variables import Variables


def part_of_ragged(
    config: JobConfig, variables: Variables, function: RaggedFunction
) -> Part | None:
    """Return the part of the matrices of all points; None for the whole matrices.

    Its rows and columns, as those of the whole matrices, are counted over all points.

    Args:
        config: The options.
        variables: The function with the numbers of all points.
        function: The same function.

    Raises:
        ConfigurationError: A selection does not fit the matrix of a point, or means something else
            there than at the first.
    """
    (numbers,) = variables.point.values()
    inputs = [
        _tensors(dict(zip(p.names, p.tensors(numbers), strict=True))) for p in function.points
    ]
    columns = _selected(config, "columns", inputs)
    is_second_order = function.is_second_order
    rows = _selected(
        config, "rows", inputs if is_second_order else [_tensors(each) for each in function.outputs]
    )
    if all(axis.is_whole for axis in (*rows, *columns)):
        return None
    elements, lines = columns, None
    if is_second_order:
        elements = [_union(*each) for each in zip(rows, columns, strict=True)]
        if not all(map(_are_same, rows, columns)):
            lines = [_lines(*each) for each in zip(rows, columns, elements, strict=True)]
    points: list[AtPoint] = []
    selected: list[Tensor] = []
    start = 0
    for point, of_values, axis in zip(function.points, rows, elements, strict=True):
        call, given = of_elements(point.call, point.tensors(numbers), axis)
        if not (is_second_order or of_values.is_whole):
            call = with_rows(replace(variables.function, function=call), of_values).function
        names = tuple(part.tensor.name for part in axis.parts)
        points.append(AtPoint(call, names, tuple(each.shape for each in given), start))
        selected += [each.reshape(-1) for each in given]
        start += points[-1].width
    loaded = variables.function
    if not is_second_order:
        loaded = replace(loaded, outputs=tuple(part.tensor.name for part in rows[0].parts))
    flat = torch.cat(selected)
    part = RaggedFunction(
        loaded, points, flat, is_second_order=is_second_order, seed=config.seed, lines=lines
    )
    return Part(
        _of_all(rows),
        _of_all(columns),
        variables.function,
        variables.point,
        replace(variables.function, function=part),
        {ALL_POINTS: flat},
        None if lines is None else _lines_of_all(lines, points, flat),
    )


def _tensors(tensors: Mapping[str, Tensor]) -> list[AxisTensor]:
    return [AxisTensor(name, tuple(each.shape), each.dtype) for name, each in tensors.items()]


def _selected(
    config: JobConfig, option: str, whole: Sequence[Sequence[AxisTensor]]
) -> list[SelectedAxis]:
    """Return the lines that an option selects at each point.

    Args:
        config: The options.
        option: ``rows`` or ``columns``.
        whole: The tensors of the axis at each point.

    Raises:
        ConfigurationError: There are no such lines at a point, or they are others there.
    """
    selection = getattr(config, option)
    found: list[SelectedAxis] = []
    for number, tensors in enumerate(whole):
        try:
            found.append(selected_axis(option, selection, tensors, config.seed))
        except ConfigurationError as error:
            raise ConfigurationError(f"at point {number}: {error}") from error
        is_by_number = isinstance(selection, str) or "sample" in (selection or ())
        if is_by_number and (difference := _difference(found[0], found[-1])):
            raise ConfigurationError(
                f"{option}={selection} points={config.points.by}: at point {number} this selects "
                f"{difference[1]}, and at the first {difference[0]}; valid are {option}.tensor=, "
                f"and {option}.of= with {option}.index=, which mean the same at points of all sizes"
            )
        names = [[part.tensor.name for part in axis.parts] for axis in (found[0], found[-1])]
        if names[0] != names[1]:
            raise ConfigurationError(
                f"{option}={selection} points={config.points.by}: at point {number} there are "
                f"elements of {', '.join(names[1]) or 'no tensor'}, and at the first of "
                f"{', '.join(names[0]) or 'no tensor'}; valid is what is there at each point"
            )
    return found


def _difference(first: SelectedAxis, other: SelectedAxis) -> tuple[str, str] | None:
    """Return the first lines that are not the same elements, in words; None if all are."""
    if len(first.numbers) != len(other.numbers):
        return f"{len(first.numbers)} lines", f"{len(other.numbers)}"
    for one, two in zip(_elements(first), _elements(other), strict=True):
        if one != two:
            return one, two
    return None


def _elements(axis: SelectedAxis) -> Iterator[str]:
    """Yield each selected element as the name of its tensor and its index there."""
    for part in axis.parts:
        tensor = axis.whole[part.position]
        numbers = np.arange(tensor.size) if part.numbers is None else part.numbers
        indices = np.unravel_index(numbers, tensor.shape or (1,))
        for index in np.stack(indices, axis=1).tolist():
            yield f"{tensor.name}[{', '.join(map(str, index))}]"


def _union(rows: SelectedAxis, columns: SelectedAxis) -> SelectedAxis:
    return SelectedAxis.of(columns.whole, np.union1d(rows.numbers, columns.numbers))


def _are_same(rows: SelectedAxis, columns: SelectedAxis) -> bool:
    return np.array_equal(rows.numbers, columns.numbers)


def _lines(rows: SelectedAxis, columns: SelectedAxis, both: SelectedAxis) -> Lines:
    """Return which of the elements of both are rows, and which are columns."""
    inside = [part.tensor for part in both.parts]
    return Lines(
        *(
            SelectedAxis.of(inside, np.searchsorted(both.numbers, axis.numbers))
            for axis in (rows, columns)
        )
    )


def _of_all(axes: Sequence[SelectedAxis]) -> SelectedAxis:
    """Return the lines of all points, counted over all of them."""
    starts = np.cumsum([0, *(axis.size for axis in axes[:-1])])
    numbers = [axis.numbers + start for axis, start in zip(axes, starts, strict=True)]
    return SelectedAxis.of([each for axis in axes for each in axis.whole], np.concatenate(numbers))


def _lines_of_all(lines: Sequence[Lines], points: Sequence[AtPoint], flat: Tensor) -> Lines:
    """Return which of the numbers of all points are rows, and which are columns."""
    whole = [AxisTensor(ALL_POINTS, tuple(flat.shape), flat.dtype)]
    sides = []
    for side in ("rows", "columns"):
        numbers = [
            getattr(each, side).numbers + point.start
            for each, point in zip(lines, points, strict=True)
        ]
        sides.append(SelectedAxis.of(whole, np.concatenate(numbers)))
    return Lines(*sides)
