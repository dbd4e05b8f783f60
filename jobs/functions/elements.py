"""Selected elements of the tensors of a point, and gradients of and by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from jobs.functions.at_points import PointsFunction
from jobs.functions.batch_sum import BatchSum
from jobs.functions.curvature import Curvature
from jobs.functions.loading import LoadedFunction
from jobs.functions.returned_values import named_outputs
from jobs.functions.selections import SelectedAxis, SelectedTensor

_Function = Callable[..., object]


class Filling:
    """Puts selected elements among the others, which are constants."""

    def __init__(self, columns: SelectedAxis, device: torch.device) -> None:
        """Keep the selection.

        Args:
            columns: The selected elements.
            device: The device of the tensors.
        """
        self._parts = columns.parts
        self._indices = [_index(part.numbers, device) for part in columns.parts]

    def __call__(self, constants: Sequence[Tensor], elements: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors of a point.

        Args:
            constants: All tensors of the point.
            elements: What the selected elements are replaced by.
        """
        selected = {part.position for part in self._parts}
        # Copies: a function may work in place on its arguments.
        tensors = [x if n in selected else x.clone() for n, x in enumerate(constants)]
        for part, index, given in zip(self._parts, self._indices, elements, strict=True):
            if index is None:
                tensors[part.position] = given
                continue
            # The verification evaluates in double precision as well.
            whole = constants[part.position].to(given.dtype)
            flat = whole.reshape(-1).index_copy(0, index, given.reshape(-1))
            tensors[part.position] = flat.reshape(whole.shape)
        return tensors


def elements_of(
    point: Sequence[Tensor], axis: SelectedAxis, *, leading: int = 0
) -> tuple[Tensor, ...]:
    """Return the selected elements of the tensors of a point.

    Args:
        point: The tensors.
        axis: The selection.
        leading: 1 for tensors with a leading dimension over points.
    """
    return tuple(_selected(point[part.position], part, leading) for part in axis.parts)


def gradient_of(
    function: _Function, fill: Callable[..., Sequence[Tensor]], rows: SelectedAxis
) -> Callable[..., tuple[Tensor, ...]]:
    """Return the selected rows of the gradient of a function, by the elements that fill a point.

    Args:
        function: A scalar function of the point.
        fill: Returns the point of these elements.
        rows: The selected elements of the gradient.
    """

    def call(*elements: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            tensors = [
                each if each.requires_grad else each.view_as(each).requires_grad_()
                for each in fill(*elements)
            ]
            # What works in place on its arguments changes copies.
            value = function(*(each.clone() for each in tensors))
            assert isinstance(value, Tensor)
            found = torch.autograd.grad(
                value.reshape(()),
                [tensors[part.position] for part in rows.parts],
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        return tuple(_selected(a, part) for a, part in zip(found, rows.parts, strict=True))

    return call


def of_elements(
    function: _Function, point: Sequence[Tensor], columns: SelectedAxis
) -> tuple[_Function, tuple[Tensor, ...]]:
    """Return a function of selected elements of a point, and these elements.

    Args:
        function: A function of the point, or a sum of such.
        point: The point; its other elements are constants.
        columns: The selection.
    """
    selected, fill = elements_of(point, columns), filled(point, columns)
    if isinstance(function, Curvature):
        width = sum(point[part.position].numel() for part in columns.parts)
        return function.of_some(fill, selected, width), selected
    return mapped(function, lambda term: lambda *given: term(*fill(*given))), selected


def filled(point: Sequence[Tensor], columns: SelectedAxis) -> Callable[..., list[Tensor]]:
    """Return what puts selected elements into a point whose other elements are constants."""
    constants = [tensor.detach() for tensor in point]
    fill = Filling(columns, constants[0].device)
    return lambda *elements: fill(constants, elements)


def with_rows(function: LoadedFunction, rows: SelectedAxis) -> LoadedFunction:
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
    return replace(function, function=mapped(function.function, changed), outputs=names)


def mapped(function: _Function, change: Callable[[_Function], _Function]) -> _Function:
    """Return a changed function; of a sum over batches the sum of its changed terms."""
    is_of_several = isinstance(function, BatchSum | PointsFunction)
    return function.mapped(change) if is_of_several else change(function)


def _selected(tensor: Tensor, part: SelectedTensor, leading: int = 0) -> Tensor:
    index = _index(part.numbers, tensor.device)
    if index is None:
        return tensor
    before = tensor.shape[:leading]
    chosen = tensor.reshape(*before, -1).index_select(leading, index)
    return chosen.reshape(*before, *part.tensor.shape)


def _index(numbers: np.ndarray | None, device: torch.device) -> Tensor | None:
    return None if numbers is None else torch.from_numpy(numbers).to(device)
