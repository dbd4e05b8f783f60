"""Rules for gathers, shifts and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.registry import (
    check_zero,
    is_live,
    only_first,
    output_of,
    rule,
    step_of,
)
from autodiff_core._programs.stack_operators import Gather
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import combination

_aten = torch.ops.aten


@rule(_aten.index)
def _index(builder: Builder, call: Call) -> Any:
    source, indices = call.args[:2]
    if not isinstance(source, Reference):
        return NotImplemented
    flat = _flat_index(source.shape, indices)
    if flat is None:
        return NotImplemented
    dim, last, positions = flat
    merged = (*source.shape[:dim], -1, *source.shape[last:])
    return gathered(
        builder, source, dim, _numbers(merged, source.shape), positions, output_of(call)
    )


def _numbers(shape: tuple[int, ...], like: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with its -1 replaced by the length that gives as many elements as `like`."""
    known = torch.Size([size for size in shape if size != -1]).numel()
    rest = torch.Size(like).numel() // max(known, 1)
    return tuple(rest if size == -1 else size for size in shape)


def _flat_index(
    shape: tuple[int, ...], indices: Sequence[Tensor | None]
) -> tuple[int, int, Tensor] | None:
    """Combine index tensors of adjacent dimensions into one index of the merged dimensions.

    Returns:
        The first of the dimensions, one past the last, and the index, of the shape that the
        tensors broadcast to; None if there is no such index.
    """
    given = [dim for dim, index in enumerate(indices) if index is not None]
    if not given or given != list(range(given[0], given[-1] + 1)):
        return None
    tensors = [indices[dim] for dim in given]
    if any(t is None or isinstance(t, Reference) or t.dtype == torch.bool for t in tensors):
        return None
    flat: Any = 0
    for dim, tensor in zip(given, tensors, strict=True):
        assert tensor is not None
        size = shape[dim]
        if size == 0:
            return None
        flat = flat * size + torch.where(tensor < 0, tensor + size, tensor).long()
    return given[0], given[-1] + 1, flat


def gathered(
    builder: Builder,
    source: Reference,
    dim: int,
    merged: tuple[int, ...],
    positions: Tensor,
    out: Reference,
) -> int:
    """Append a gather along one dimension of a merged shape; return the step's number."""
    index = Gather(positions.reshape(-1))

    def apply(stack: Stack) -> Stack:
        taken = stack_operators.gather(stack_operators.reshape(stack, merged), dim, index)
        return stack_operators.reshape(taken, out.shape)

    return builder.step("gather", step_of(builder, source), out.shape, out.dtype, apply)


@rule(_aten.index_select)
def _index_select(builder: Builder, call: Call) -> Any:
    source, dim, positions = call.args
    if not only_first(builder, call) or not source.shape:
        return NotImplemented
    dim %= len(source.shape)
    return gathered(builder, source, dim, source.shape, positions, output_of(call))


@rule(_aten.roll)
def _roll(builder: Builder, call: Call) -> Any:
    source, shifts = call.args[:2]
    dims = call.args[2] if len(call.args) > 2 else []
    if len(shifts) != 1 or len(dims) > 1:
        return NotImplemented
    out = output_of(call)
    # Without a dimension the elements are shifted in their order.
    dim = dims[0] % len(source.shape) if dims else 0
    merged = source.shape if dims else (torch.Size(source.shape).numel(),)
    index = Gather(torch.arange(merged[dim], device=source.device).roll(shifts[0]))

    def apply(stack: Stack) -> Stack:
        stack = stack_operators.reshape(stack, merged)
        if stack.dim == dim:
            stack = stack_operators.gather(stack, dim, index)
        else:
            stack = stack.spread()
            stack = replace(stack, data=stack.data.roll(shifts[0], dim + 1))
        return stack_operators.reshape(stack, out.shape)

    return builder.step("gather", step_of(builder, source), out.shape, out.dtype, apply)


@rule(_aten.flip)
def _flip(builder: Builder, call: Call) -> Any:
    source, dims = call.args
    if len(dims) != 1:
        return NotImplemented
    dim = dims[0] % len(source.shape)
    positions = torch.arange(source.shape[dim], device=source.device).flip(0)
    return gathered(builder, source, dim, source.shape, positions, output_of(call))


@rule(_aten.index_put, _aten._index_put_impl, _aten._unsafe_index_put)
def _index_put(builder: Builder, call: Call) -> Any:
    target, indices, values = call.args[:3]
    accumulate = call.args[3] if len(call.args) > 3 else call.kwargs.get("accumulate", False)
    if not accumulate or not is_live(builder, values):
        return NotImplemented
    flat = _flat_index(target.shape, indices)
    if flat is None:
        return NotImplemented
    dim, last, positions = flat
    natural = (*target.shape[:dim], *positions.shape, *target.shape[last:])
    if values.shape != natural:
        return NotImplemented
    total = scattered(
        builder,
        values,
        dim,
        positions,
        (*target.shape[:dim], -1, *target.shape[last:]),
        output_of(call),
    )
    return _with_target(builder, call, target, total)


def _with_target(builder: Builder, call: Call, target: Any, total: int) -> int:
    """Append the sum with a target, which is zero or itself a value; return the step's number."""
    out = output_of(call)
    if is_live(builder, target):
        pair = step_of(builder, target), total
        return builder.add(combination(pair, (None, None), out.shape, out.dtype))
    if not isinstance(target, Reference):
        check_zero(target)
    return total


def scattered(
    builder: Builder,
    values: Reference,
    dim: int,
    positions: Tensor,
    merged: tuple[int, ...],
    out: Reference,
) -> int:
    """Append a sum by index along one dimension of a merged shape; return the step's number."""
    merged = _numbers(merged, out.shape)
    index = positions.reshape(-1)
    flat = (*merged[:dim], len(index), *merged[dim + 1 :])

    def apply(stack: Stack) -> Stack:
        added = stack_operators.scatter(
            stack_operators.reshape(stack, flat), dim, index, merged[dim]
        )
        return stack_operators.reshape(added, out.shape)

    return builder.step("scatter", step_of(builder, values), out.shape, out.dtype, apply)


@rule(_aten.index_add)
def _index_add(builder: Builder, call: Call) -> Any:
    target, dim, positions, values = call.args[:4]
    if not is_live(builder, values) or isinstance(positions, Reference) or call.kwargs:
        return NotImplemented
    if not target.shape:
        return NotImplemented
    dim %= len(target.shape)
    total = scattered(builder, values, dim, positions, tuple(target.shape), output_of(call))
    return _with_target(builder, call, target, total)
