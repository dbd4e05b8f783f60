"""Rules for gathers and shifts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.registry import (
    only_first,
    output_of,
    rule,
    step_of,
)
from autodiff_core._programs.stack_operators import Gather
from autodiff_core._programs.stacks import Stack

_aten = torch.ops.aten


@rule(_aten.index)
def _index(builder: Builder, call: Call) -> Any:
    source, indices = call.args[:2]
    if not isinstance(source, Reference):
        return NotImplemented
    flat = flat_index(source.shape, indices)
    if flat is None:
        return NotImplemented
    dim, last, positions = flat
    merged = numbers((*source.shape[:dim], -1, *source.shape[last:]), source.shape)
    return gathered(builder, source, dim, merged, positions, output_of(call))


def numbers(shape: tuple[int, ...], like: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with its -1 replaced by the length that gives as many elements as `like`."""
    known = torch.Size([size for size in shape if size != -1]).numel()
    rest = torch.Size(like).numel() // max(known, 1)
    return tuple(rest if size == -1 else size for size in shape)


def flat_index(
    shape: tuple[int, ...], given: Sequence[Tensor | Reference | None]
) -> tuple[int, int, Tensor] | None:
    """Combine index tensors of adjacent dimensions into one index of the merged dimensions.

    A mask counts as the positions where it is true.

    Returns:
        The first of the dimensions, one past the last, and the index, of the shape that the
        tensors broadcast to; None if there is no such index.
    """
    indices: list[Tensor | None] = []
    for index in given:
        if isinstance(index, Reference):
            return None
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            indices += index.nonzero(as_tuple=True)
        else:
            indices.append(index)
    dims = [dim for dim, index in enumerate(indices) if index is not None]
    if not dims or dims != list(range(dims[0], dims[-1] + 1)):
        return None
    flat: Any = 0
    for dim in dims:
        tensor, size = indices[dim], shape[dim]
        assert tensor is not None
        if size == 0:
            return None
        flat = flat * size + torch.where(tensor < 0, tensor + size, tensor).long()
    return dims[0], dims[-1] + 1, flat


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

    def selects(constant: Tensor) -> Tensor:
        return constant.reshape(merged).index_select(dim, index.index).reshape(out.shape)

    number = step_of(builder, source)
    return builder.step("gather", number, out.shape, out.dtype, apply, selects)


@rule(_aten.diagonal, _aten.diagonal_copy)
def _diagonal(builder: Builder, call: Call) -> Any:
    source, out = call.args[0], output_of(call)
    offset, first, second = diagonal_places(call.args[1:], call.kwargs, len(source.shape))
    dims = {"offset": offset, "dim1": first, "dim2": second}
    of_stacks = {"offset": offset, "dim1": first + 1, "dim2": second + 1}

    def apply(stack: Stack) -> Stack:
        if stack.dim is None or stack.dim in (first, second):
            return Stack(stack.dense().diagonal(**of_stacks), out.shape)
        dim = stack.dim - (first < stack.dim) - (second < stack.dim)
        data = stack.spread().data.diagonal(**of_stacks)
        return Stack(data, out.shape, dim, stack.support)

    number = step_of(builder, source)
    selects = partial(torch.diagonal, **dims)
    return builder.step("cut", number, out.shape, out.dtype, apply, selects)


def diagonal_places(given: Sequence[Any], named: dict[str, Any], rank: int) -> tuple[int, int, int]:
    """Return the offset and the two dimensions of a diagonal, from the arguments of an operator."""
    offset, first, second = (*given, *(0, 0, 1)[len(given) :])
    first, second = named.get("dim1", first), named.get("dim2", second)
    return named.get("offset", offset), first % rank, second % rank


@rule(_aten.index_select)
def _index_select(builder: Builder, call: Call) -> Any:
    source, dim, positions = call.args
    if not only_first(builder, call) or not source.shape:
        return NotImplemented
    dim %= len(source.shape)
    return gathered(builder, source, dim, source.shape, positions, output_of(call))


@rule(_aten.embedding)
def _embedding(builder: Builder, call: Call) -> Any:
    weight, positions = call.args[:2]
    if not only_first(builder, call):
        return NotImplemented
    return gathered(builder, weight, 0, weight.shape, positions, output_of(call))


@rule(_aten.take)
def _take(builder: Builder, call: Call) -> Any:
    source, positions = call.args
    count = torch.Size(source.shape).numel()
    if not only_first(builder, call) or not count:
        return NotImplemented
    return gathered(builder, source, 0, (count,), positions % count, output_of(call))


@rule(_aten.gather)
def _gather(builder: Builder, call: Call) -> Any:
    source, dim, index = call.args
    if not only_first(builder, call):
        return NotImplemented
    place, merged, positions = along(source.shape, dim, index)
    return gathered(builder, source, place, merged, positions, output_of(call))


def along(shape: tuple[int, ...], dim: int, index: Tensor) -> tuple[int, tuple[int, ...], Tensor]:
    """Return a dimension and positions along it that an index for each element chooses.

    Returns:
        The dimension of a shape, the shape, and the positions: of the given shape if whole lines
        are chosen, otherwise of one with all elements in one dimension.
    """
    if shape and index.numel():
        dim %= len(shape)
        lines = index.movedim(dim, 0).reshape(index.shape[dim], -1)
        others = [size for place, size in enumerate(shape) if place != dim]
        is_whole = others == [size for place, size in enumerate(index.shape) if place != dim]
        if is_whole and bool((lines == lines[:, :1]).all()):
            return dim, shape, lines[:, 0]
    count = torch.Size(shape).numel()
    elements = torch.arange(count, device=index.device).reshape(shape)
    return 0, (count,), elements.gather(dim, index).flatten()


@rule(_aten.roll)
def _roll(builder: Builder, call: Call) -> Any:
    source, shifts = call.args[:2]
    dims = call.args[2] if len(call.args) > 2 else []
    out, number = output_of(call), step_of(builder, source)
    # Without a dimension the elements are shifted in their order.
    merged = source.shape if dims else (torch.Size(source.shape).numel(),)
    for shift, dim in zip(shifts, dims or [0], strict=True):
        apply = _rolled(builder, shift, dim % len(merged), tuple(merged), out)
        number = builder.step("gather", number, out.shape, out.dtype, apply)
    return number


def _rolled(
    builder: Builder, shift: int, dim: int, merged: tuple[int, ...], out: Reference
) -> Callable[[Stack], Stack]:
    # The steps of an integrator shift alike, hundreds of times.
    key = "roll", shift, merged[dim]
    index = builder.notes.get(key)
    if index is None:
        index = Gather(torch.arange(merged[dim], device=out.device).roll(shift))
        builder.notes[key] = index

    def apply(stack: Stack) -> Stack:
        stack = stack_operators.reshape(stack, merged)
        if stack.dim == dim:
            stack = stack_operators.gather(stack, dim, index)
        else:
            stack = stack.spread()
            stack = replace(stack, data=stack.data.roll(shift, dim + 1))
        return stack_operators.reshape(stack, out.shape)

    return apply


@rule(_aten.flip)
def _flip(builder: Builder, call: Call) -> Any:
    source, dims = call.args
    if len(dims) != 1:
        return NotImplemented
    dim = dims[0] % len(source.shape)
    index = Gather(torch.arange(source.shape[dim], device=source.device).flip(0))

    def apply(stack: Stack) -> Stack:
        if stack.dim == dim:
            return stack_operators.gather(stack, dim, index)
        return replace(stack, data=stack.data.flip(dim + 1))

    out = output_of(call)
    return builder.step("gather", step_of(builder, source), out.shape, out.dtype, apply)
