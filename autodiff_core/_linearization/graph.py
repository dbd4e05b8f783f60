"""The autograd graph of a function: what its derivative runs through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge


def nodes_between(outputs: Iterable[Tensor], inputs: Iterable[Tensor]) -> list[Node]:
    """Return the nodes on the paths from outputs to inputs, in the order of evaluation.

    What an output depends on by integers, truth values or detached tensors alone is on no path.

    Args:
        outputs: Tensors with their graph; those without one are left out.
        inputs: Tensors that require a gradient.
    """
    users: dict[Node, list[Node]] = {}
    pending = [get_gradient_edge(each).node for each in outputs if each.requires_grad]
    seen = set(pending)
    while pending:
        node = pending.pop()
        for following, _ in node.next_functions:
            if following is None:
                continue
            users.setdefault(following, []).append(node)
            if following not in seen:
                seen.add(following)
                pending.append(following)
    pending = [get_gradient_edge(each).node for each in inputs if each.requires_grad]
    found = {node for node in pending if node in seen}
    while pending:
        for node in users.get(pending.pop(), ()):
            if node not in found:
                found.add(node)
                pending.append(node)
    return sorted(found, key=lambda node: node._sequence_nr())


def dtypes_of(node: Node) -> tuple[torch.dtype, ...]:
    """Return the floating-point dtypes, real or complex, of the tensors that a node stands for."""
    return tuple(each.dtype for each in node._input_metadata if _is_inexact(each.dtype))


def least_precise(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], nodes: Iterable[Node]
) -> torch.dtype:
    """Return the least precise dtype that the derivative of outputs by inputs runs through.

    Args:
        outputs: The outputs.
        inputs: Tensors, at least one of them of floating point.
        nodes: The nodes of the graph between them.
    """
    dtypes = [each.dtype for each in (*outputs, *inputs) if _is_inexact(each.dtype)]
    dtypes += [each for node in nodes for each in dtypes_of(node)]
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def graph_reaches(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> bool:
    """Return whether the graph leads from at least one output to at least one input."""
    ends = {get_gradient_edge(each).node for each in inputs if each.requires_grad}
    return any(node in ends for node in _nodes(outputs))


def custom_backwards(tensors: Sequence[Tensor]) -> list[str]:
    """Return the names of the custom `torch.autograd.Function` classes in the graph of tensors."""
    names = {
        type(node).__name__.removesuffix("Backward"): None
        for node in _nodes(tensors)
        if isinstance(node, torch.autograd.function.BackwardCFunction)
    }
    return list(names)


def custom_function(node: Any) -> str | None:
    """Return the name of the custom `torch.autograd.Function` that made a node.

    None for other nodes, those of operators registered with `torch.library` among them: a record
    of operators shows these.
    """
    name = type(node).__name__.removesuffix("Backward")
    is_custom = isinstance(node, torch.autograd.function.BackwardCFunction)
    return name if is_custom and not name.startswith("GeneratedBackwardFor_") else None


def custom_without_jvp(nodes: Iterable[Any]) -> str | None:
    """Return the name of a custom `torch.autograd.Function` among nodes that defines no `jvp`.

    No tangent passes through it: torch raises an error. Operators registered with `torch.library`
    are left out: some drop the tangent.
    """
    for node in nodes:
        name = custom_function(node)
        if name is not None and node._forward_cls.jvp is torch.autograd.Function.jvp:
            return name
    return None


def _nodes(tensors: Sequence[Tensor]) -> Iterator[Any]:
    """Yield each node of the graph of tensors once, depth first."""
    pending = [get_gradient_edge(each).node for each in tensors if each.requires_grad]
    seen = set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        yield node
        seen.add(node)
        pending.extend(each for each, _ in node.next_functions if each is not None)


def _is_inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex
