"""The rule for operators that move data: run the operator itself on the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autodiff_core.sparse._detection.dependence import Context, Traced, holds_traced, identity
from autodiff_core.sparse._detection.index_sets import Layer, Layers, Table
from autodiff_core.sparse._detection.registry import Call

_MOVEMENTS: dict[str, tuple[int, ...]] = {
    "cat": (0,),
    "constant_pad_nd": (0, 2),
    "diagonal": (0,),
    "diagonal_scatter": (0, 1),
    "expand": (0,),
    "flip": (0,),
    "gather": (0,),
    "index": (0,),
    "index_copy": (0, 3),
    "index_fill": (0, 3),
    "index_put": (0, 2),
    "index_select": (0,),
    "masked_fill": (0, 2),
    "masked_scatter": (0, 2),
    "masked_select": (0,),
    "permute": (0,),
    "reflection_pad1d": (0,),
    "reflection_pad2d": (0,),
    "reflection_pad3d": (0,),
    "replication_pad1d": (0,),
    "replication_pad2d": (0,),
    "replication_pad3d": (0,),
    "repeat": (0,),
    "roll": (0,),
    "scatter": (0, 3),
    "select": (0,),
    "select_scatter": (0, 1),
    "slice": (0,),
    "slice_scatter": (0, 1),
    "split": (0,),
    "split_with_sizes": (0,),
    "squeeze": (0,),
    "t": (0,),
    "transpose": (0,),
    "unbind": (0,),
    "unfold": (0,),
    "unsqueeze": (0,),
    "view": (0,),
    "_unsafe_view": (0,),
    "_unsafe_index": (0,),
    "where": (1, 2),
}
"""The positions of the arguments whose data an operator moves; all others choose the places."""

_ADDITIONS = {"index_put": 3, "_unsafe_index_put": 3}
"""The position of the argument that decides whether an operator adds to existing values."""


def is_movement(call: Call) -> bool:
    """Return whether a call only moves data, to places that no traced argument decides."""
    name, arguments = _name(call), call.arguments
    if name not in _MOVEMENTS or call.keywords:
        return False
    if name in _ADDITIONS and len(arguments) > _ADDITIONS[name] and arguments[_ADDITIONS[name]]:
        return False
    return not any(
        holds_traced(argument)
        for position, argument in enumerate(arguments)
        if position not in _MOVEMENTS[name]
    )


def move(call: Call) -> Any:
    """Run an operator on the layers of its operands.

    Returns:
        A `Traced` result, or a list of them.
    """
    arguments, context = call.arguments, call.context
    positions = _MOVEMENTS[_name(call)]
    groups: dict[int, list[list[Layer]]] = {}
    tables: dict[int, Table | None] = {}
    operands = [part for p in positions if p < len(arguments) for part in _flat(arguments[p])]
    for number, operand in enumerate(operands):
        for layer in operand.layers if isinstance(operand, Traced) else ():
            tables[id(layer.table)] = layer.table
            slots = groups.setdefault(id(layer.table), [[] for _ in operands])
            slots[number].append(layer)
    results: list[tuple[Table | None, Any]] = []
    for key, slots in groups.items():
        for turn in range(max(map(len, slots))):
            chosen = [slot[turn] if turn < len(slot) else None for slot in slots]
            results.append((tables[key], _moved(call, positions, chosen)))
    if not results:
        none = [None] * len(operands)
        return _without_layers(_moved(call, positions, none))
    if isinstance(results[0][1], Tensor):
        return _traced(results, context)
    return [
        _traced([(table, parts[index]) for table, parts in results], context)
        for index in range(len(results[0][1]))
    ]


def _traced(results: list[tuple[Table | None, Tensor]], context: Context) -> Traced:
    shape = tuple(results[0][1].shape)
    layers: Layers = tuple(Layer(moved, table) for table, moved in results)
    return Traced(shape, context.sets.union([layers], shape))


def _without_layers(moved: Any) -> Any:
    if isinstance(moved, Tensor):
        return Traced(tuple(moved.shape))
    return [Traced(tuple(part.shape)) for part in moved]


def _flat(argument: Any) -> list[Any]:
    return list(argument) if isinstance(argument, (list, tuple)) else [argument]


def _name(call: Call) -> str:
    # A copying variant of a view moves data as the view does.
    return call.name.removesuffix("_copy")


def _moved(call: Call, positions: Sequence[int], chosen: Sequence[Layer | None]) -> Any:
    """Run the operator once, each operand replaced by one of its layers or by no dependence."""
    target, context = call.target, call.context
    remaining = iter(chosen)

    def replaced(operand: Any) -> Any:
        layer = next(remaining)
        if layer is not None:
            return layer.map
        if isinstance(operand, (Tensor, Traced)):
            return torch.full((), -1, dtype=context.sets.dtype).expand(operand.shape)
        return -1

    run = list(call.arguments)
    for position in positions:
        if position < len(run):
            given = run[position]
            many = isinstance(given, (list, tuple))
            run[position] = [replaced(part) for part in given] if many else replaced(given)
    if _name(call) in (
        "view",
        "_unsafe_view",
    ):  # the strides of a layer may differ from the tensor's
        target = torch.ops.aten.reshape.default
    if target is torch.ops.aten.constant_pad_nd.default:
        run = [*run[:2], -1]
    key = (target, identity(run))
    # A filler is created each time, so only runs without one can be found again.
    if any(layer is None for layer in chosen):
        return target(*run)
    if key not in context.moved:
        # Keep the arguments alive, so that no other object gets their identity.
        context.moved[key] = (target(*run), run)
    return context.moved[key][0]
