"""Selected elements of the tensors of a point, and gradients of and by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jobs.functions.selections import SelectedAxis, SelectedTensor

_Function = Callable[..., object]


@dataclass(frozen=True)
class Lines:
    """The lines of a second derivative that are computed, where rows and columns are not the same.

    Attributes:
        rows: The rows, among the elements of the point.
        columns: The columns, likewise.
    """

    rows: SelectedAxis
    columns: SelectedAxis


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
        tensors = list(constants)
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


def _selected(tensor: Tensor, part: SelectedTensor, leading: int = 0) -> Tensor:
    index = _index(part.numbers, tensor.device)
    if index is None:
        return tensor
    before = tensor.shape[:leading]
    chosen = tensor.reshape(*before, -1).index_select(leading, index)
    return chosen.reshape(*before, *part.tensor.shape)


def _index(numbers: np.ndarray | None, device: torch.device) -> Tensor | None:
    return None if numbers is None else torch.from_numpy(numbers).to(device)
