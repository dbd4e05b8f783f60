"""Rules for sums by index and for writes at given positions."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.indexing import (
    along,
    diagonal_places,
    flat_index,
    gathered,
    numbers,
)
from autodiff_core._programs.rules.registry import (
    check_zero,
    is_live,
    only_first,
    output_of,
    rule,
    step_of,
)
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import combination, permutation

_aten = torch.ops.aten


@rule(_aten.index_put, _aten._index_put_impl, _aten._unsafe_index_put)
def _index_put(builder: Builder, call: Call) -> Any:
    target, indices, values = call.args[:3]
    accumulate = call.args[3] if len(call.args) > 3 else call.kwargs.get("accumulate", False)
    flat = flat_index(target.shape, indices)
    if flat is None:
        return NotImplemented
    dim, last, positions = flat
    natural = (*target.shape[:dim], *positions.shape, *target.shape[last:])
    merged = numbers((*target.shape[:dim], -1, *target.shape[last:]), target.shape)
    return _put(builder, call, values, (dim, merged, positions.flatten()), accumulate, natural)


@rule(_aten.index_add, _aten.index_copy, _aten.index_fill)
def _index_add(builder: Builder, call: Call) -> Any:
    target, dim, positions, values = call.args[:4]
    if isinstance(positions, Reference) or call.kwargs or not target.shape:
        return NotImplemented
    dim %= len(target.shape)
    places = dim, tuple(target.shape), positions.flatten()
    natural = (*target.shape[:dim], positions.numel(), *target.shape[dim + 1 :])
    packet = call.operator.overloadpacket
    natural = natural if packet is _aten.index_fill else None
    return _put(builder, call, values, places, packet is _aten.index_add, natural)


@rule(_aten.scatter_add, _aten.scatter)
def _scatter_add(builder: Builder, call: Call) -> Any:
    target, dim, index, values = call.args[:4]
    if isinstance(index, Reference) or call.kwargs:
        return NotImplemented
    if is_live(builder, values) and values.shape != index.shape:
        return NotImplemented
    places = along(tuple(target.shape), dim, index)
    adds = call.operator.overloadpacket is _aten.scatter_add
    return _put(builder, call, values, places, adds)


@rule(_aten.put)
def _put_in_order(builder: Builder, call: Call) -> Any:
    """Write at positions in the order of elements, the derivative of `take`."""
    target, positions, values, *rest = call.args
    count = torch.Size(target.shape).numel()
    if isinstance(positions, Reference) or call.kwargs or values.shape != positions.shape:
        return NotImplemented
    if not count:
        return NotImplemented
    places = 0, (count,), positions.flatten() % count
    return _put(builder, call, values, places, bool(rest and rest[0]))


@rule(_aten.unfold_backward)
def _unfold_backward(builder: Builder, call: Call) -> Any:
    """Sum what overlapping windows along a dimension read; their last dimension is the window's."""
    windows, sizes, dim, size, step = call.args
    if not sizes or not only_first(builder, call):
        return NotImplemented
    out, dim = output_of(call), dim % len(sizes)
    places = torch.arange(sizes[dim], device=out.device).unfold(0, size, step).flatten()
    order = (*range(dim + 1), len(sizes), *range(dim + 1, len(sizes)))
    shape = [windows.shape[place] for place in order]
    number = builder.add(permutation(step_of(builder, windows), order, shape, out.dtype))
    return scattered(builder, number, dim, places, tuple(sizes), out)


def _put(
    builder: Builder,
    call: Call,
    values: Any,
    places: tuple[int, tuple[int, ...], Tensor],
    adds: bool,
    natural: tuple[int, ...] | None = None,
) -> Any:
    """Append what a call adds to its first argument, or writes into it.

    Args:
        builder: The program.
        call: The call.
        values: What is added or written.
        places: A dimension, the shape that has it, and positions along it.
        adds: Whether the values are added.
        natural: The shape that the values are broadcast to; None for their own.
    """
    dim, merged, positions = places
    target, out = call.args[0], output_of(call)
    if not adds and len(positions.unique()) < len(positions):
        return NotImplemented
    for each in (target, values):
        if not isinstance(each, Reference):
            check_zero(each)
    sources, factors = [], []
    if is_live(builder, target):
        kept = None
        if not adds:
            kept = torch.ones(merged, dtype=torch.bool, device=out.device)
            kept = kept.index_fill_(dim, positions, False).reshape(out.shape)
        sources.append(step_of(builder, target))
        factors.append(kept)
    if is_live(builder, values):
        shape = natural or values.shape
        number = step_of(builder, values)
        if values.shape != shape:
            expand = partial(stack_operators.expand, shape=shape)
            number = builder.step("expand", number, shape, out.dtype, expand)
        sources.append(scattered(builder, number, dim, positions, merged, out))
        factors.append(None)
    return builder.add(combination(sources, factors, out.shape, out.dtype))


def scattered(
    builder: Builder,
    source: int,
    dim: int,
    positions: Tensor,
    merged: tuple[int, ...],
    out: Reference,
) -> int:
    """Append a sum by index along one dimension of a merged shape; return the step's number."""
    flat = (*merged[:dim], len(positions), *merged[dim + 1 :])

    def apply(stack: Stack) -> Stack:
        added = stack_operators.scatter(
            stack_operators.reshape(stack, flat), dim, positions, merged[dim]
        )
        return stack_operators.reshape(added, out.shape)

    return builder.step("scatter", source, out.shape, out.dtype, apply)


@rule(_aten.diagonal_backward, _aten.diag_embed)
def _on_a_diagonal(builder: Builder, call: Call) -> Any:
    """Write to a diagonal of zeros."""
    source, *given = call.args
    out, rank = output_of(call), len(output_of(call).shape)
    if call.operator.overloadpacket is _aten.diag_embed:
        # Its dimensions are the last ones unless others are named.
        given = [*given, *(0, -2, -1)[len(given) :]]
    else:
        given = given[1:]
    offset, first, second = diagonal_places(given, call.kwargs, rank)

    def apply(stack: Stack) -> Stack:
        whole = stack.data.new_zeros((stack.count, *out.shape))
        whole.diagonal(offset, first + 1, second + 1).copy_(stack.dense())
        return Stack(whole, out.shape)

    return builder.step("scatter", step_of(builder, source), out.shape, out.dtype, apply)


@rule(_aten.embedding_dense_backward)
def _embedding_backward(builder: Builder, call: Call) -> Any:
    gradient, indices, _, padding, by_frequency = call.args
    if not only_first(builder, call):
        return NotImplemented
    factors = _row_factors(indices, padding, by_frequency, gradient.dtype)
    return _summed_by_row(builder, call, step_of(builder, gradient), indices, factors)


@rule(_aten._embedding_bag_backward, _aten._embedding_bag_dense_backward)
def _embedding_bag_backward(builder: Builder, call: Call) -> Any:
    """Give every row of a bag the gradient of the bag's sum or mean, and sum by row."""
    names = [each.name for each in call.operator._schema.arguments]
    given = {"padding_idx": -1, **dict(zip(names, call.args, strict=False)), **call.kwargs}
    gradient, indices, bags = given["grad"], given["indices"], given["offset2bag"]
    is_sum, is_mean = given["mode"] == 0, given["mode"] == 1
    if not only_first(builder, call) or not (is_sum or is_mean) or bags.shape != indices.shape:
        return NotImplemented
    if given["scale_grad_by_freq"]:
        return NotImplemented
    factors = _row_factors(indices, given["padding_idx"], False, gradient.dtype)
    if is_mean:
        factors = factors / given["bag_size"].index_select(0, bags)
    elif given["per_sample_weights"] is not None:
        factors = factors * given["per_sample_weights"]
    each = replace(gradient, shape=(len(indices), *gradient.shape[1:]))
    number = gathered(builder, gradient, 0, gradient.shape, bags, each)
    return _summed_by_row(builder, call, number, indices, factors)


def _row_factors(indices: Tensor, padding: int, by_frequency: bool, dtype: torch.dtype) -> Tensor:
    """Return the factor of each looked-up row: none of those that only pad has a gradient."""
    factors = (indices != padding).to(dtype)
    if by_frequency:
        _, where, counts = indices.unique(return_inverse=True, return_counts=True)
        factors = factors / counts[where]
    return factors


def _summed_by_row(
    builder: Builder, call: Call, number: int, indices: Tensor, factors: Tensor
) -> int:
    """Append the sums of scaled gradients of rows by the number of the row."""
    out = output_of(call)
    if bool((factors != 1).any()):
        shape = (*indices.shape, *out.shape[1:])
        number = builder.add(combination((number,), (factors[..., None],), shape, out.dtype))
    return scattered(builder, number, 0, indices.flatten(), tuple(out.shape), out)
