"""Rules for operators that rearrange, cut, join or sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.exponentials import cut_of_exponential, joined_with_matrix
from autodiff_core._programs.rules.multiples import with_joined_multiples
from autodiff_core._programs.rules.registry import (
    Padding,
    Part,
    check_zero,
    is_live,
    output_of,
    rule,
    rule_of_several,
    step_of,
)
from autodiff_core._programs.rules.transforms import real_part
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import Step, combination, permutation

_aten = torch.ops.aten

_VIEWS = (
    _aten.view,
    _aten._unsafe_view,
    _aten.reshape,
    _aten.unsqueeze,
    _aten.squeeze,
    _aten.flatten,
    _aten._reshape_alias,
)


@rule(*_VIEWS)
def _view(builder: Builder, call: Call) -> Any:
    out = output_of(call)
    source = step_of(builder, call.args[0])
    return builder.step(
        "reshape", source, out.shape, out.dtype, partial(stack_operators.reshape, shape=out.shape)
    )


@rule(_aten.t, _aten.transpose, _aten.permute)
def _permute(builder: Builder, call: Call) -> Any:
    out, rank = output_of(call), len(call.args[0].shape)
    dims = list(range(rank))
    if call.operator.overloadpacket is _aten.permute:
        dims = [dim % rank for dim in call.args[1]]
    elif rank > 1:
        first, second = (0, 1) if call.operator.overloadpacket is _aten.t else call.args[1:]
        dims[first], dims[second] = dims[second], dims[first]
    source = step_of(builder, call.args[0])
    return builder.add(permutation(source, tuple(dims), out.shape, out.dtype))


@rule(_aten.zero, _aten._new_zeros_with_same_feature_meta)
def _zero(builder: Builder, call: Call) -> None:
    """Return None: the result is zero whatever its argument is."""


@rule(_aten.fill)
def _fill(builder: Builder, call: Call) -> Any:
    value = call.args[1]
    return None if not isinstance(value, Reference) and value == 0 else NotImplemented


@rule(_aten.expand)
def _expand(builder: Builder, call: Call) -> Any:
    out, source = output_of(call), call.args[0]
    if out.shape == source.shape:
        return step_of(builder, source)
    return builder.step(
        "expand",
        step_of(builder, source),
        out.shape,
        out.dtype,
        partial(stack_operators.expand, shape=out.shape),
    )


@rule(_aten.sum, _aten.mean)
def _total(builder: Builder, call: Call) -> Any:
    source, out = call.args[0], output_of(call)
    rank = len(source.shape)
    given = call.args[1] if len(call.args) > 1 else None
    given = [given] if isinstance(given, int) else given
    dims = tuple(sorted(dim % rank for dim in given)) if given and rank else tuple(range(rank))
    keepdim = bool(call.args[2]) if len(call.args) > 2 else bool(call.kwargs.get("keepdim", False))
    if out.dtype != source.dtype:
        return NotImplemented
    number = step_of(builder, source)
    if call.operator.overloadpacket is _aten.mean:
        count = torch.Size([source.shape[dim] for dim in dims]).numel()
        number = builder.add(
            combination((number,), (1 / max(count, 1),), source.shape, source.dtype)
        )
    apply = partial(stack_operators.total, dims=dims, keepdim=keepdim)
    return builder.add(Step("sum", (number,), out.shape, out.dtype, apply, dims=dims))


@rule(_aten.slice, _aten.select)
def _cut(builder: Builder, call: Call) -> Any:
    source, out = call.args[0], output_of(call)
    rank = len(source.shape)
    given: Sequence[Any] = (*call.args[1:], *(None,) * (5 - len(call.args)))
    dim = (given[0] or 0) % rank
    size = source.shape[dim]
    if call.operator.overloadpacket is _aten.select:
        start = given[1] % size
        stop, step = start + 1, 1
    else:
        start, stop, step = slice_of(given[1:], size)
    if step != 1:
        return NotImplemented
    if out.shape == source.shape:
        return step_of(builder, source)
    derivative = cut_of_exponential(builder, call, dim, range(start, stop))
    if derivative is not None:
        return derivative
    if (dim, size, range(start, stop)) == (rank - 1, 2, range(1)):
        number = real_part(builder, step_of(builder, source), out)
        if number is not None:
            return number
    return _part(builder, source, dim, range(start, stop), out)


def _part(builder: Builder, source: Reference, dim: int, taken: range, out: Reference) -> int:
    shape = (*source.shape[:dim], len(taken), *source.shape[dim + 1 :])
    assert torch.Size(shape).numel() == torch.Size(out.shape).numel()

    is_selected = tuple(out.shape) == (*source.shape[:dim], *source.shape[dim + 1 :])

    def apply(stack: Stack) -> Stack:
        if stack.dim is None and is_selected:
            return Stack(stack.data.select(dim + 1, taken.start), out.shape)
        return stack_operators.reshape(
            stack_operators.cut(stack, dim, taken.start, taken.stop), out.shape
        )

    def selects(constant: Tensor) -> Tensor:
        return constant.narrow(dim, taken.start, len(taken)).reshape(out.shape)

    number = builder.step("cut", step_of(builder, source), out.shape, out.dtype, apply, selects)
    builder.notes[number] = Part(step_of(builder, source), dim, taken)
    return number


@rule_of_several(_aten.unbind, _aten.split, _aten.split_with_sizes, _aten.unsafe_split)
def _divide(builder: Builder, call: Call) -> None:
    source, *given = call.args
    is_unbind = call.operator.overloadpacket is _aten.unbind
    place = 0 if is_unbind else 1
    dim = (given[place] if len(given) > place else call.kwargs.get("dim", 0)) % len(source.shape)
    start = 0
    for output in call.outputs:
        assert output is not None
        stop = start + (1 if is_unbind else output.shape[dim])
        builder.numbers[output.value] = _part(builder, source, dim, range(start, stop), output)
        start = stop


def slice_of(given: Sequence[Any], size: int) -> tuple[int, int, int]:
    """Return start, stop and step of a slice of a dimension, from the arguments of an operator."""
    begin, end, stride = slice(*(*given, None, None, None)[:3]).indices(size)
    return begin, max(begin, end), stride


@rule(_aten.slice_backward, _aten.select_backward)
def _pad(builder: Builder, call: Call) -> Any:
    source, sizes, dim = call.args[:3]
    out = output_of(call)
    dim %= len(sizes)
    if call.operator.overloadpacket is _aten.select_backward:
        start, step = call.args[3] % sizes[dim], 1
    else:
        start, _, step = slice_of(call.args[3:], sizes[dim])
    if step != 1:
        return NotImplemented
    length = 1 if call.operator.overloadpacket is _aten.select_backward else source.shape[dim]
    part = (*sizes[:dim], length, *sizes[dim + 1 :])

    def apply(stack: Stack) -> Stack:
        return stack_operators.pad(stack_operators.reshape(stack, part), dim, start, sizes[dim])

    step = Step("pad", (step_of(builder, source),), tuple(out.shape), out.dtype, apply)
    number = builder.add(replace(step, dims=(dim, start, length)))
    builder.notes[number] = Padding(step_of(builder, source), tuple(source.shape), dim, start)
    return number


@rule(_aten.cat, _aten.stack)
def _join(builder: Builder, call: Call) -> Any:
    parts, out = call.args[0], output_of(call)
    dim = (call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)) % len(out.shape)
    is_stack = call.operator.overloadpacket is _aten.stack
    on_the_way = None if is_stack else joined_with_matrix(builder, call, dim)
    if on_the_way is not None:
        return on_the_way
    pieces: list[tuple[tuple[int, ...], int | None]] = []
    for part in parts:
        shape = tuple(part.shape)
        if is_stack:
            shape = (*shape[:dim], 1, *shape[dim:])
        if len(shape) != len(out.shape):
            # torch allows an empty tensor of one dimension to be joined to any other.
            return NotImplemented
        if not isinstance(part, Reference):
            check_zero(part)
        pieces.append((shape, step_of(builder, part) if is_live(builder, part) else None))
    pieces = with_joined_multiples(builder, pieces, dim, out)
    if len(pieces) < len(parts) and len(pieces) == 1:
        return pieces[0][1]  # a single part of a stack has another shape
    sources = [number for _, number in pieces if number is not None]
    places = count()
    layout = [(shape, None if number is None else next(places)) for shape, number in pieces]

    def apply(*stacks: Stack, dims: tuple[int, ...] = ()) -> Stack:
        first = stacks[0]
        joined = [
            _zeros(first, shape) if place is None else stack_operators.reshape(stacks[place], shape)
            for shape, place in layout
        ]
        return stack_operators.join_in_order(joined, dim, dims)

    return builder.add(Step("join", tuple(sources), out.shape, out.dtype, apply))


def _zeros(like: Stack, shape: tuple[int, ...]) -> Stack:
    return Stack(like.data.new_zeros(1).expand(like.count, *shape), shape)
