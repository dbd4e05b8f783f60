"""Detection rules for elementwise operators, and broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.index_sets import Layer, Layers
from autodiff_core.sparse._detection.registry import Call, independent, rule

_WITHOUT_TAG = {
    "_prelu_kernel", "frexp", "gelu_backward", "hardswish_backward", "hardsigmoid_backward",
    "log_sigmoid_forward", "nan_to_num", "native_dropout_backward", "softplus_backward",
    "special_xlog1py", "xlogy",
}  # fmt: skip
"""Elementwise operators that torch does not tag as pointwise."""


def is_elementwise(call: Call) -> bool:
    """Return whether each element of the results reads the operands at its own place alone."""
    return torch.Tag.pointwise in call.target.tags or call.name in _WITHOUT_TAG


def elementwise(operands: Sequence[Any], shape: tuple[int, ...], context: Context) -> Traced:
    """Return a result whose elements depend on what the operands' elements there depend on."""
    parts = [
        broadcast(operand, shape, context) for operand in operands if isinstance(operand, Traced)
    ]
    return Traced(shape, context.sets.union(parts, shape))


def broadcast(operand: Traced, shape: tuple[int, ...], context: Context) -> Layers:
    """Return the layers of an operand, broadcast to a larger shape."""
    if operand.shape == shape:
        return operand.layers
    expanded = []
    for layer in operand.layers:
        key = ("broadcast", id(layer.map), shape)
        if key not in context.moved:
            context.moved[key] = (layer.map.expand(shape), layer)
        expanded.append(Layer(context.moved[key][0], layer.table))
    return tuple(expanded)


@rule(
    "argmax", "argmin", "argsort", "ceil", "floor", "floor_divide", "heaviside", "nextafter",
    "round", "sgn", "sign", "signbit", "trunc",
)  # fmt: skip
def _zero_derivative(call: Call) -> Any:
    """Return no dependence: the derivative is zero wherever it exists."""
    return independent(call.node)


@rule(
    "alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "positive",
    "_to_copy",
)  # fmt: skip
def _unchanged(call: Call) -> Any:
    return call.arguments[0]


@rule("copy")
def _copy(call: Call) -> Traced:
    """Return the dependence on the second argument, which replaces the first."""
    return elementwise([call.arguments[1]], call.shape, call.context)


@rule("threshold_backward", "hardtanh_backward", "relu_backward")
def _linear_in_first(call: Call) -> Traced:
    """Return the dependence on the first argument; the others only choose the branch."""
    return elementwise(call.arguments[:1], call.shape, call.context)


@rule("where")
def _where(call: Call) -> Traced:
    """Return the dependence on both branches; the condition has no derivative."""
    return elementwise(call.arguments[1:], call.shape, call.context)


@rule("masked_fill")
def _masked_fill(call: Call) -> Traced:
    """Return the dependence on tensor and value; the mask has no derivative."""
    return elementwise([call.arguments[0], call.arguments[2]], call.shape, call.context)


@rule("mul", "div", "pow")
def _product(call: Call) -> Any:
    """Return the dependence of a product, quotient or power; a constant zero removes it."""
    if call.keywords.get("rounding_mode"):
        return independent(call.node)
    first, second = call.arguments[:2]
    if isinstance(first, Traced) and not isinstance(second, Traced):
        if call.name == "div":
            return elementwise([first], call.shape, call.context)
        return _masked(first, second, call.shape, call.context)
    if isinstance(second, Traced) and not isinstance(first, Traced):
        return _masked(second, first, call.shape, call.context)
    return elementwise([first, second], call.shape, call.context)


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
