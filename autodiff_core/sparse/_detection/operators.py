"""Apply one operator of a graph to dependencies, by its rule or conservatively."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

# Each file registers its rules when it is imported.
from autodiff_core.sparse._detection import (
    convolutions,  # noqa: F401
    matrix_products,  # noqa: F401
    reductions,  # noqa: F401
    scattering,  # noqa: F401
)
from autodiff_core.sparse._detection.dependence import SHAPE_ONLY, Context, Traced, holds_traced
from autodiff_core.sparse._detection.elementwise import elementwise, is_elementwise
from autodiff_core.sparse._detection.movement import is_movement, move
from autodiff_core.sparse._detection.registry import RULES, Call, independent, shapes_of


def apply(node: fx.Node, arguments: Any, keywords: Any, context: Context) -> Any:
    """Return the result of a node: a constant if no argument is traced, else dependencies.

    Args:
        node: The node.
        arguments: The values of its positional arguments.
        keywords: The values of its keyword arguments.
        context: What rules share.
    """
    target = node.target
    if target is operator.getitem:
        return arguments[0][arguments[1]]
    if not isinstance(target, torch._ops.OpOverload):  # pyright: ignore[reportAttributeAccessIssue]
        return _conservative(str(target), (arguments, keywords), node, context)
    name = target.overloadpacket.__name__
    if torch.Tag.nondeterministic_seeded in target.tags:
        # Random numbers differ from run to run and depend on no input.
        if name == "native_dropout":
            return _conservative(name, (arguments, keywords), node, context)
        return independent(node)
    if name in SHAPE_ONLY:
        fill = {"zeros_like": 0, "ones_like": 1}.get(name) if len(arguments) < 2 else arguments[1]
        dtype = node.meta["tensor_meta"].dtype
        return torch.full((), fill or 0, dtype=dtype).expand(shapes_of(node))
    if not holds_traced(list(arguments)) and not holds_traced(list(keywords.values())):
        return target(*arguments, **_on_cpu(keywords))
    return _dependencies(Call(target, arguments, keywords, node, context))


def _dependencies(call: Call) -> Any:
    """Return what the results of a call with a traced argument depend on."""
    if call.name.startswith(("empty", "new_empty", "rand")) or not call.is_differentiable:
        return independent(call.node)
    if is_movement(call):
        return move(call)
    if call.name in RULES and call.is_described:
        found = RULES[call.name](call)
        if found is not NotImplemented:
            return found
    elif is_elementwise(call):
        operands, shapes = [*call.arguments, *call.keywords.values()], shapes_of(call.node)
        if isinstance(shapes, tuple):
            return elementwise(operands, shapes, call.context)
        return [elementwise(operands, shape, call.context) for shape in shapes]
    return _conservative(call.name, (call.arguments, call.keywords), call.node, call.context)


def _on_cpu(keywords: Any) -> Any:
    # Index maps live on the CPU, and so must the indices that they meet.
    return {**keywords, "device": torch.device("cpu")} if "device" in keywords else keywords


def _conservative(name: str, given: Any, node: fx.Node, context: Context) -> Any:
    """Return results every element of which depends on everything that the operator reads."""
    context.conservative.add(name)
    operands: list[Any] = []
    map_aggregate(given, lambda each: operands.append(each))
    shapes = shapes_of(node)
    if isinstance(shapes, tuple):
        return Traced(shapes, context.everything(operands, shapes))
    return [Traced(shape, context.everything(operands, shape)) for shape in shapes]
