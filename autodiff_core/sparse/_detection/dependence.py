"""Values whose dependence on the input is traced, and the context of a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autodiff_core.sparse._detection.index_sets import Layer, Layers, Sets

SHAPE_ONLY = ("empty_like", "full_like", "ones_like", "zeros_like")
"""Operators that read nothing of their operand but its shape."""


@dataclass(frozen=True, eq=False)
class Traced:
    """A tensor whose numbers are not known, only what they depend on.

    Attributes:
        shape: Its shape.
        layers: On which inputs its elements depend; empty where no derivative passes.
    """

    shape: tuple[int, ...]
    layers: Layers = ()


@dataclass
class Context:
    """What rules share while a graph is interpreted.

    Attributes:
        sets: Unites sets of inputs.
        conservative: The operators without a rule that were met.
        moved: Results of moving layers, by what was done to which; so that tensors that move
            alike go on sharing their layers.
    """

    sets: Sets
    conservative: set[str] = field(default_factory=set)
    moved: dict[Any, Any] = field(default_factory=dict)

    def everything(self, operands: Sequence[Any], shape: Sequence[int]) -> Layers:
        """Every element depends on all that the operands depend on."""
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
    """The elements of a layer without the repetition of what is expanded."""
    return layer[
        tuple(slice(0, 1) if step == 0 else slice(None) for step in layer.stride())
    ].reshape(-1)


def identity(argument: Any) -> Any:
    """A key that is equal for arguments that are the same object, or equal numbers."""
    if isinstance(argument, (Tensor, Traced)):
        return id(argument)
    if isinstance(argument, (list, tuple)):
        return tuple(identity(part) for part in argument)
    if isinstance(argument, dict):
        return tuple((name, identity(part)) for name, part in argument.items())
    # 1, 1.0 and True are equal, and mean different things to an operator.
    return (type(argument).__name__, str(argument))


def holds_traced(argument: Any) -> bool:
    """Whether an argument is, or holds, a tensor that depends on the inputs."""
    if isinstance(argument, (list, tuple)):
        return any(map(holds_traced, argument))
    return isinstance(argument, Traced)
