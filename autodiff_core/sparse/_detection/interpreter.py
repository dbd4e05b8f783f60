"""Run a traced graph on dependencies instead of numbers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

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


def interpret(graph: fx.GraphModule, inputs: Sequence[Tensor], context: Context) -> list[Any]:
    """The outputs of a graph as `Traced` tensors or, where they are constant, numbers.

    Args:
        graph: Functional operators.
        inputs: The tensors whose elements are counted, in the order of the placeholders.
        context: Shared by the rules.
    """
    from autodiff_core.sparse._detection.rules import apply

    values: dict[fx.Node, Any] = {}
    same: dict[Any, Any] = {}
    _describe_several_results(graph)
    needed = _needed(graph)
    offset, position = 0, 0
    for node in graph.graph.nodes:
        if node.op == "output":
            return list(map_arg(node.args[0], lambda each: values[each]))
        if node.op == "placeholder":
            primal = inputs[position]
            index = torch.arange(offset, offset + primal.numel(), dtype=context.sets.dtype)
            values[node] = Traced(tuple(primal.shape), (Layer(index.view(primal.shape)),))
            offset += primal.numel()
            position += 1
        elif node.op == "get_attr":
            # Index maps live on the CPU, and so must the indices that they meet.
            values[node] = getattr(graph, str(node.target)).detach().cpu()
        elif node in needed:
            context.sets.check_time()
            # What only lends its shape has no value.
            arguments = map_arg(node.args, values.get)
            keywords = map_arg(node.kwargs, values.get)
            key = (node.target, identity(arguments), identity(keywords))
            if key not in same:
                same[key] = (apply(node, arguments, keywords, context), arguments, keywords)
            values[node] = same[key][0]
    raise AssertionError("a graph has an output")


def _needed(graph: fx.GraphModule) -> set[fx.Node]:
    """The nodes from which something reaches the outputs other than a shape."""
    needed: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        if node.op == "output" or node in needed:
            name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
            needed.update(() if name in SHAPE_ONLY else node.all_input_nodes)
    return needed


def _describe_several_results(graph: fx.GraphModule) -> None:
    """Note what each result of a node with several is; None for one that nobody takes."""
    for node in graph.graph.nodes:
        taken = {
            user.args[1]: user.meta.get("tensor_meta")
            for user in node.users
            if user.target is operator.getitem
        }
        if taken and "tensor_meta" not in node.meta:
            node.meta["tensor_meta"] = [taken.get(place) for place in range(max(taken) + 1)]


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
