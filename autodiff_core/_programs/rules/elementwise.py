"""Rules for operators that act element by element."""

from __future__ import annotations

from typing import Any

import torch

from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference, UncapturableError
from autodiff_core._programs.rules.registry import (
    check_zero,
    is_live,
    only_first,
    output_of,
    rule,
    scaled,
    step_of,
    weighted_sum,
)
from autodiff_core._programs.rules.transforms import to_complex

_aten = torch.ops.aten

# Operators that are linear in their first argument, element by element.
_ELEMENTWISE = (
    _aten.tanh_backward,
    _aten.sigmoid_backward,
    _aten.gelu_backward,
    _aten.silu_backward,
    _aten.mish_backward,
    _aten.leaky_relu_backward,
    _aten.elu_backward,
    _aten.softplus_backward,
    _aten.log_sigmoid_backward,
    _aten.hardswish_backward,
    _aten.hardsigmoid_backward,
    _aten.div,
)
# Operators that keep some elements of their first argument and make the others zero.
_SELECTIONS = (_aten.threshold_backward, _aten.hardtanh_backward, _aten.tril, _aten.triu)
_SAME = (_aten.clone, _aten.detach, _aten.alias, _aten.contiguous, _aten.lift_fresh)


@rule(*_SELECTIONS)
def _selection(builder: Builder, call: Call) -> Any:
    if not only_first(builder, call):
        return NotImplemented
    source = call.args[0]
    ones = torch.ones(source.shape, dtype=source.dtype, device=source.device)
    chosen = call.operator(ones, *call.args[1:], **call.kwargs).bool()
    return scaled(builder, call, source, chosen)


@rule(*_ELEMENTWISE)
def _elementwise(builder: Builder, call: Call) -> Any:
    if not only_first(builder, call) or call.kwargs.get("rounding_mode") is not None:
        return NotImplemented
    source = call.args[0]
    ones = torch.ones(source.shape, dtype=source.dtype, device=source.device)
    return scaled(builder, call, source, call.operator(ones, *call.args[1:], **call.kwargs))


@rule(_aten.mul)
def _mul(builder: Builder, call: Call) -> Any:
    first, second = call.args[:2]
    if isinstance(first, Reference) and isinstance(second, Reference):
        raise UncapturableError("the map is not linear: two values of it are multiplied")
    return (
        scaled(builder, call, first, second)
        if isinstance(first, Reference)
        else scaled(builder, call, second, first)
    )


@rule(_aten.neg, _aten._neg_view)
def _neg(builder: Builder, call: Call) -> Any:
    return scaled(builder, call, call.args[0], -1.0)


@rule(_aten.add, _aten.sub, _aten.rsub)
def _add(builder: Builder, call: Call) -> Any:
    first, second = call.args[:2]
    alpha = call.kwargs.get("alpha", call.args[2] if len(call.args) > 2 else 1)
    packet = call.operator.overloadpacket
    signs = {_aten.add: (1, alpha), _aten.sub: (1, -alpha), _aten.rsub: (-alpha, 1)}[packet]
    return weighted_sum(builder, call, (first, second), signs)


@rule(_aten.where)
def _where(builder: Builder, call: Call) -> Any:
    condition, *branches = call.args
    if isinstance(condition, Reference):
        return NotImplemented
    return weighted_sum(builder, call, branches, (condition, ~condition))


@rule(_aten.masked_fill)
def _masked_fill(builder: Builder, call: Call) -> Any:
    if not only_first(builder, call):
        return NotImplemented
    source, mask, value = call.args
    check_zero(value)
    return scaled(builder, call, source, ~mask)


@rule(*_SAME)
def _same(builder: Builder, call: Call) -> Any:
    return step_of(builder, call.args[0])


@rule(_aten._to_copy)
def _to_copy(builder: Builder, call: Call) -> Any:
    out, source = output_of(call), call.args[0]
    if out.dtype == source.dtype:
        return step_of(builder, source)
    if source.dtype.is_complex:
        return NotImplemented
    if out.dtype.is_complex:
        return to_complex(builder, step_of(builder, source), out)
    return scaled(builder, call, call.args[0], None)


@rule(_aten.copy)
def _copy(builder: Builder, call: Call) -> Any:
    source = call.args[1]
    if not is_live(builder, source):
        check_zero(source if not isinstance(source, Reference) else 0)
        return None
    return scaled(builder, call, source, None)
