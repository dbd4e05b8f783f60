"""Divide traces for repeated evaluation: what depends on seeds alone is computed once."""

from __future__ import annotations

import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

_aten = torch.ops.aten
_BY_INDEX = {_aten.index.Tensor, _aten.index_select.default, _aten.gather.default}
# As many operators, at least, as keeping a tensor must save.
_READ = 8


def divided(
    traced: GraphModule, points: int, *, least_saved: int = 1
) -> tuple[GraphModule, GraphModule]:
    """Divide a trace into what depends only on its last arguments, and the rest.

    Args:
        traced: A trace of a function from plain tensors to a list of tensors.
        points: The number of arguments before the last ones.
        least_saved: How many operators keeping a tensor must save. In a fused kernel, reading an
            entry takes as long as computing a few operators.

    Returns:
        A function from the last arguments to the tensors that the rest needs; and a function from
        the first arguments and those tensors to what the trace returns.
    """
    traced.graph.eliminate_dead_code()
    nodes = list(traced.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    early = _independent_of(placeholders[:points], nodes) | set(placeholders[points:])
    frontier, spared = _frontier(nodes, early, least_saved)
    first, rest = Graph(), Graph()
    copies: dict[Node, Node] = {}
    for node in nodes:
        if node in early or node.op == "get_attr":
            copies[node] = first.node_copy(node, copies.__getitem__)
    first.output([copies[node] for node in frontier])
    copies = {node: rest.node_copy(node) for node in placeholders[:points]}
    for node in frontier:
        copies[node] = rest.placeholder(f"known_{node.name}")
    for node in nodes:
        if node not in copies and node not in spared:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    made = []
    for graph in (first, rest):
        graph.eliminate_dead_code()
        made.append(GraphModule(traced, graph))
    return made[0], made[1]


def _independent_of(arguments: list[Node], nodes: list[Node]) -> set[Node]:
    """Return the calls on which none of the arguments has an influence.

    There are none in a graph that writes to tensors, whose order of operators matters.
    """
    # A constant of the function is copied to each part that reads it.
    if any(_mutates(node) for node in nodes):
        return set()
    variable = set(arguments)
    for node in nodes:
        if node.op == "output" or variable.intersection(node.all_input_nodes):
            variable.add(node)
    return {node for node in nodes if node.op == "call_function" and node not in variable}


def _frontier(
    nodes: list[Node], early: set[Node], least_saved: int
) -> tuple[list[Node], set[Node]]:
    """Choose which early tensors are kept.

    Returns:
        The kept tensors that later operators read, and all nodes that need not be run again.
    """
    spared = set(early)
    frontier: list[Node] = []
    for node in reversed(nodes):
        if node not in spared or spared.issuperset(node.users):
            continue
        if node.op == "placeholder" or _operators_behind(node) >= least_saved:
            frontier.append(node)
        else:
            spared.remove(node)
    return frontier, spared


def _mutates(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _operators_behind(node: Node) -> int:
    """Return how many operators, other than views, lead from the arguments to a node.

    One that reads by index counts as many: a kernel does not vectorize it.
    """
    behind, seen = [node], {node}
    while behind:
        for source in behind.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                behind.append(source)
    targets = [each.target for each in seen if isinstance(each.target, OpOverload)]
    return sum(_READ if each in _BY_INDEX else not each.is_view for each in targets)
