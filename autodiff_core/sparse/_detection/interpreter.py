"""Run a traced graph on dependencies instead of numbers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from autodiff_core.sparse._detection.dependence import SHAPE_ONLY, Context, Traced, identity
from autodiff_core.sparse._detection.index_sets import Layer
from autodiff_core.sparse._detection.operators import apply


def interpret(graph: fx.GraphModule, inputs: Sequence[Tensor], context: Context) -> list[Any]:
    """Return the outputs of a graph as `Traced` tensors or, if they are constant, as tensors.

    Args:
        graph: A graph of functional operators.
        inputs: The tensors whose elements are numbered, in the order of the placeholders.
        context: The state that rules share.
    """
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
            # A node of which only the shape is used has no value.
            arguments = map_arg(node.args, values.get)
            keywords = map_arg(node.kwargs, values.get)
            key = (node.target, identity(arguments), identity(keywords))
            if key not in same:
                same[key] = (apply(node, arguments, keywords, context), arguments, keywords)
            values[node] = same[key][0]
    raise AssertionError("a graph has an output")


def _needed(graph: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes of which more than the shape has an influence on the outputs."""
    needed: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        if node.op == "output" or node in needed:
            name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
            needed.update(() if name in SHAPE_ONLY else node.all_input_nodes)
    return needed


def _describe_several_results(graph: fx.GraphModule) -> None:
    """Set the metadata of each result of nodes with several results; None for unused ones."""
    for node in graph.graph.nodes:
        taken = {
            user.args[1]: user.meta.get("tensor_meta")
            for user in node.users
            if user.target is operator.getitem
        }
        if taken and "tensor_meta" not in node.meta:
            node.meta["tensor_meta"] = [taken.get(place) for place in range(max(taken) + 1)]
