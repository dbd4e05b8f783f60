"""Detection rules for elementwise operators and broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.index_sets import Layer, Layers


def elementwise(operands: Sequence[Any], shape: tuple[int, ...], context: Context) -> Traced:
    """Each element depends on what the operands' elements at its place depend on."""
    parts = [
        broadcast(operand, shape, context) for operand in operands if isinstance(operand, Traced)
    ]
    return Traced(shape, context.sets.union(parts, shape))


def broadcast(operand: Traced, shape: tuple[int, ...], context: Context) -> Layers:
    """The layers of an operand in a larger shape."""
    if operand.shape == shape:
        return operand.layers
    expanded = []
    for layer in operand.layers:
        key = ("broadcast", id(layer.map), shape)
        if key not in context.moved:
            context.moved[key] = (layer.map.expand(shape), layer)
        expanded.append(Layer(context.moved[key][0], layer.table))
    return tuple(expanded)


def _product(
    name: str, arguments: Sequence[Any], shape: tuple[int, ...], context: Context
) -> Traced:
    """A product, quotient or power: what a constant zero switches off carries nothing."""
    first, second = arguments[:2]
    if isinstance(first, Traced) and not isinstance(second, Traced):
        if name == "div":
            return elementwise([first], shape, context)
        return _masked(first, second, shape, context)
    if isinstance(second, Traced) and not isinstance(first, Traced):
        return _masked(second, first, shape, context)
    return elementwise([first, second], shape, context)


def _masked(operand: Traced, constant: Any, shape: tuple[int, ...], context: Context) -> Traced:
    if not isinstance(constant, Tensor):
        return Traced(shape) if constant == 0 else elementwise([operand], shape, context)
    core = constant[tuple(slice(0, 1) if step == 0 else slice(None) for step in constant.stride())]
    present = core != 0
    if bool(present.all()):
        return elementwise([operand], shape, context)
    if not bool(present.any()):
        return Traced(shape)
    present = present.expand(constant.shape)
    layers = []
    for layer in broadcast(operand, shape, context):
        key = ("masked", id(layer.map), id(constant))
        if key not in context.moved:
            none = torch.full((), -1, dtype=layer.map.dtype)
            context.moved[key] = (torch.where(present, layer.map, none), layer, constant)
        layers.append(Layer(context.moved[key][0], layer.table))
    return Traced(shape, context.sets.union([tuple(layers)], shape))
