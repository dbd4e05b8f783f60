"""Values whose dependence on the inputs is traced, and the context of the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autodiff_core.sparse._detection.index_sets import Layer, Layers, Sets


@dataclass(frozen=True, eq=False)
class Traced:
    """A tensor of which only the dependence on the inputs is known, not the numbers.

    Attributes:
        shape: The tensor's shape.
        layers: The inputs on which its elements depend; empty if it has no derivative.
    """

    shape: tuple[int, ...]
    layers: Layers = ()


@dataclass
class Context:
    """The state that rules share while a recording is interpreted.

    Attributes:
        sets: The sets of inputs.
        pattern: Finds the pattern of another function at a point.
        conservative: The operators without a rule that occurred, each by its name and its line.
        moved: Results of moving layers, by operator and operands, so that tensors that are moved
            in the same way continue to share their layers.
    """

    sets: Sets
    pattern: Callable[[Callable[[Tensor], Tensor], Tensor], Any]
    conservative: set[tuple[str, str]] = field(default_factory=set)
    moved: dict[Any, Any] = field(default_factory=dict)

    def everything(self, operands: Sequence[Any], shape: Sequence[int]) -> Layers:
        """Return layers in which every element depends on everything the operands depend on."""
        rows: list[Layer] = []
        for operand in operands:
            for layer in operand.layers if isinstance(operand, Traced) else ():
                elements = _distinct(layer.map)
                starts = torch.tensor([0, len(elements)])
                members = torch.arange(len(elements))
                rows += self.sets.grouped((Layer(elements, layer.table),), starts, members)
        if not rows:
            return ()
        (row,) = self.sets.compact(tuple(rows), (1,))
        return (Layer(row.map[0].expand(shape), row.table),)


def _distinct(layer: Tensor) -> Tensor:
    """Return the elements of a layer without the repetition of expanded dimensions."""
    return layer[
        tuple(slice(0, 1) if step == 0 else slice(None) for step in layer.stride())
    ].reshape(-1)


def identity(argument: Any) -> Any:
    """Return a key that is equal for the same tensors and for equal numbers of one type."""
    if isinstance(argument, (Tensor, Traced)):
        return id(argument)
    if isinstance(argument, (list, tuple)):
        return tuple(identity(part) for part in argument)
    if isinstance(argument, dict):
        return tuple((name, identity(part)) for name, part in argument.items())
    # 1, 1.0 and True compare equal but have different meanings for an operator.
    return (type(argument).__name__, str(argument))


def holds_traced(argument: Any) -> bool:
    """Return whether an argument is, or contains, a `Traced` tensor."""
    if isinstance(argument, (list, tuple)):
        return any(map(holds_traced, argument))
    return isinstance(argument, Traced)
