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
    "argmax", "argmin", "argsort", "ceil", "floor", "floor_divide", "heaviside", "histc",
    "nextafter", "round", "sgn", "sign", "signbit", "trunc",
)  # fmt: skip
def _zero_derivative(call: Call) -> Any:
    """Return no dependence: the derivative is zero wherever it exists."""
    return independent(call.step)


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
        return independent(call.step)
    first, second = call.arguments[:2]
    parts = []
    for number, (operand, other) in enumerate(((first, second), (second, first))):
        if not isinstance(operand, Traced):
            continue
        # A denominator has no zeros, and no zero to a power that varies is known.
        is_factor = call.name == "mul" or (call.name, number) in (("div", 1), ("pow", 0))
        present = presence(other, 1 - number, call) if is_factor else True
        parts.append(_masked(operand, present, call.shape, call.context))
    return Traced(call.shape, call.context.sets.union(parts, call.shape))


def presence(operand: Any, position: int, call: Call) -> Tensor | bool:
    """Return where an operand is other than a constant zero; True for everywhere.

    Args:
        operand: The operand: a number, a constant or `Traced`.
        position: Its position among the arguments.
        call: The call.
    """
    if not isinstance(operand, (Tensor, Traced)):
        return operand != 0
    if isinstance(operand, Tensor):
        core = operand[
            tuple(slice(0, 1) if step == 0 else slice(None) for step in operand.stride())
        ]
        present = core != 0
        if bool(present.all()):
            return True
        return present.expand(operand.shape) if bool(present.any()) else False
    zeros = call.step.zeros.get(position)
    if zeros is None:
        return True
    # What depends on no input and is zero at the point is zero everywhere.
    present = ~(zeros & call.context.sets.empty(operand.layers, operand.shape))
    return True if bool(present.all()) else present


def _masked(
    operand: Traced, present: Tensor | bool, shape: tuple[int, ...], context: Context
) -> Layers:
    layers = broadcast(operand, shape, context)
    if present is True:
        return layers
    if present is False:
        return ()
    mask = present.expand(shape)
    none = torch.full((), -1, dtype=context.sets.dtype)
    return tuple(Layer(torch.where(mask, layer.map, none), layer.table) for layer in layers)
