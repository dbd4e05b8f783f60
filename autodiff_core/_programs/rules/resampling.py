"""Rules of interpolation: at regular places by products with matrices, or at those of a grid."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from autodiff_core._programs import stack_operators
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.products import live_times, times_live
from autodiff_core._programs.rules.registry import (
    only_first,
    output_of,
    rule,
    rule_of_several,
    step_of,
)
from autodiff_core._programs.stacks import Stack, simplest, take
from autodiff_core._programs.steps import combination

_aten = torch.ops.aten

_OF_BACKWARD = {
    _aten.upsample_linear1d_backward: _aten.upsample_linear1d,
    _aten.upsample_bilinear2d_backward: _aten.upsample_bilinear2d,
    _aten.upsample_bicubic2d_backward: _aten.upsample_bicubic2d,
    _aten._upsample_bilinear2d_aa_backward: _aten._upsample_bilinear2d_aa,
    _aten._upsample_bicubic2d_aa_backward: _aten._upsample_bicubic2d_aa,
}

_LONGEST_SIDE = 128
"""Products with longer sides take more time than reading the few elements that matter."""


@rule(*_OF_BACKWARD, *_OF_BACKWARD.values())
def _interpolation(builder: Builder, call: Call) -> Any:
    packet = call.operator.overloadpacket
    forward: Any = _OF_BACKWARD.get(packet, packet)
    is_backward = packet is not forward
    source, out = call.args[0], output_of(call)
    aligned, *scales = call.args[3 if is_backward else 2 :]
    before, after = (out.shape, source.shape) if is_backward else (source.shape, out.shape)
    is_usual = only_first(builder, call) and call.operator is packet.default and not call.kwargs
    if not is_usual or max(*before[2:], *after[2:]) > _LONGEST_SIDE:
        return NotImplemented
    matrices = []
    for place, (size, length) in enumerate(zip(before[2:], after[2:], strict=True)):
        # Antialiasing along another side than the last is wrong if that is 1 (torch 2.13).
        others = [1] * (len(before) - 3)
        units = torch.eye(size, dtype=out.dtype, device=out.device).reshape(size, 1, *others, size)
        scale = scales[place] if scales else None
        lines = forward(units, [*others, length], aligned, *(None for _ in others), scale)
        matrix = lines.reshape(size, length)
        matrices.append(matrix.mT.contiguous() if is_backward else matrix)
    last = (*source.shape[:-1], out.shape[-1])
    number = step_of(builder, source)
    number = live_times(builder, number, source.shape, matrices[-1], replace(out, shape=last))
    if len(matrices) == 1:
        return number
    return times_live(builder, matrices[0].mT.contiguous(), number, out)


@rule_of_several(_aten.grid_sampler_2d_backward, _aten.grid_sampler_3d_backward)
def _sampling_backward(builder: Builder, call: Call) -> Any:
    given, options = call.args[1], [*call.args[3:6]]
    if not only_first(builder, call) or call.kwargs or not given.numel():
        return NotImplemented
    of_image, of_grid = call.outputs
    if of_image is not None:
        builder.numbers[of_image.value] = _by_image(builder, call, of_image, options)
    if of_grid is not None:
        builder.numbers[of_grid.value] = _by_grid(builder, call, of_grid, options)
    return None


def _by_image(builder: Builder, call: Call, out: Reference, options: list[Any]) -> int:
    """Append the pullback by the image: the grid samples the channels of all vectors at once."""
    gradient, _, grid = call.args[:3]
    samples, *sizes = out.shape[0], *out.shape[2:]

    def apply(stack: Stack) -> Stack:
        stack, places = stack.spread(), grid
        if stack.dim == 0:
            stack = Stack(stack.dense(), stack.shape)
        if stack.dim is not None and stack.support is not None and stack.dim > 1:
            places = take(grid, stack.dim - 1, stack.support)
        channels = stack.data.movedim(0, 1).flatten(1, 2)
        image = channels.new_zeros(()).expand(samples, channels.shape[1], *sizes)
        found = call.operator(channels, image, places, *options, [True, False])[0]
        data = found.unflatten(1, stack.data.shape[:1] + stack.data.shape[2:3]).movedim(1, 0)
        if stack.dim != 1:
            return Stack(data, out.shape)
        return simplest(Stack(data, out.shape, 1, stack.support))

    return builder.step("sampling", step_of(builder, gradient), out.shape, out.dtype, apply)


def _by_grid(builder: Builder, call: Call, out: Reference, options: list[Any]) -> int:
    """Append the pullback by the grid: at each place, a sum of multiples of the channels."""
    gradient, given, grid = call.args[:3]
    slopes = []
    for channel in range(given.shape[1]):
        ones = given.new_zeros(gradient.shape)
        ones[:, channel] = 1
        slopes.append(call.operator(ones, given, grid, *options, [False, True])[1])
    factors = torch.stack(slopes, 1)
    source, shape = step_of(builder, gradient), (*gradient.shape, 1)
    reshape = partial(stack_operators.reshape, shape=shape)
    number = builder.step("reshape", source, shape, out.dtype, reshape)
    number = builder.add(combination((number,), (factors,), tuple(factors.shape), out.dtype))
    total = partial(stack_operators.total, dims=(1,), keepdim=False)
    return builder.step("sum", number, out.shape, out.dtype, total)
