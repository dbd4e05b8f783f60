"""Rules for convolutions and pooling.

A convolution of x with w is linear in each of the two, and so are its pullbacks. With w constant,
one convolution computes it for all vectors. With x constant, what its windows read is unfolded once
and the derivatives by w are matrix products: K. Chellapilla et al., "High Performance
Convolutional Neural Networks for Document Processing" (2006).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators, stack_windows
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.registry import (
    check_zero,
    is_live,
    only_first,
    output_of,
    rule,
    rule_of_several,
    step_of,
)
from autodiff_core._programs.stack_windows import Windows
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import combination
from autodiff_core._tensors.matrix_product import matrix_product

_aten = torch.ops.aten

_Maker = Callable[[Reference], int]


@rule(_aten.convolution)
def _convolution(builder: Builder, call: Call) -> Any:
    given, weight, bias, stride, padding, dilation, is_transposed, _, groups = call.args
    windows = _windows(given, weight, stride, padding, dilation)
    is_both = all(isinstance(each, Reference) for each in (given, weight))
    if windows is None or is_transposed or groups != 1 or is_both:
        return NotImplemented
    numbers, out = [], output_of(call)
    if is_live(builder, given):
        numbers.append(_convolved(builder, step_of(builder, given), weight, windows, out))
    elif is_live(builder, weight):
        numbers.append(_weighted(builder, step_of(builder, weight), given, windows, out))
    if is_live(builder, bias):
        shape = (1, weight.shape[0], *(1,) * len(windows.kernel))
        apply = partial(stack_operators.reshape, shape=shape)
        numbers.append(builder.step("reshape", step_of(builder, bias), shape, out.dtype, apply))
    elif isinstance(bias, Tensor):
        check_zero(bias)
    return builder.add(combination(numbers, [None] * len(numbers), out.shape, out.dtype))


@rule_of_several(_aten.convolution_backward)
def _convolution_backward(builder: Builder, call: Call) -> Any:
    gradient, given, weight, _, stride, padding, dilation, is_transposed, _, groups, _ = call.args
    if is_transposed or groups != 1 or len(call.references) != 1:
        return NotImplemented
    windows = _windows(given, weight, stride, padding, dilation)
    if windows is None:
        return NotImplemented
    (live,) = call.references
    number, back = step_of(builder, live), windows.transposed()
    makers: tuple[_Maker | None, ...] = (None, None, None)
    if live is gradient:
        makers = (
            lambda out: _convolved(builder, number, _turned(weight), back, out),
            lambda out: _correlated(builder, number, given, windows, gradient.shape[2:], out),
            lambda out: _summed(builder, number, out, len(gradient.shape)),
        )
    elif live is given:
        correlated = partial(_correlated, builder, number, gradient, back, given.shape[2:])
        makers = (None, partial(correlated, is_turned=True), None)
    else:
        makers = (partial(_weighted, builder, number, gradient, back, is_turned=True), None, None)
    wanted = [(out, make) for out, make in zip(call.outputs, makers, strict=True) if out]
    needs_back = live is not gradient or call.outputs[0] is not None
    if needs_back and not windows.are_adjacent:
        return NotImplemented
    # An output that does not depend on the live argument would be a constant.
    if any(make is None for _, make in wanted):
        return NotImplemented
    for out, make in wanted:
        assert make is not None
        builder.numbers[out.value] = make(out)
    return None


def _windows(
    given: Any, weight: Any, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Windows | None:
    dims = len(weight.shape) - 2
    if len(given.shape) != dims + 2 or given.dtype.is_complex:
        return None
    stride, padding, dilation = (
        tuple(each) * (dims if len(each) == 1 else 1) for each in (stride, padding, dilation)
    )
    return Windows(tuple(weight.shape[2:]), stride, padding, dilation)


def _turned(weight: Tensor) -> Tensor:
    """Return the kernel of the transposed convolution."""
    return weight.transpose(0, 1).flip(tuple(range(2, weight.dim()))).contiguous()


def _convolved(
    builder: Builder, source: int, weight: Tensor, windows: Windows, out: Reference
) -> int:
    apply = partial(stack_windows.convolved, weight=weight, windows=windows, shape=tuple(out.shape))
    return builder.step("convolution", source, out.shape, out.dtype, apply)


def _weighted(
    builder: Builder,
    source: int,
    given: Tensor,
    windows: Windows,
    out: Reference,
    *,
    is_turned: bool = False,
) -> int:
    """Append the convolution of a constant with a value, or with its turned kernel."""
    samples, results, *counts = out.shape
    read = stack_windows.unfolded(given, windows, counts)
    if is_turned:
        read = read.flip(2)
    columns = read.permute(1, 2, 0, 3).reshape(-1, samples * math.prod(counts))

    def apply(stack: Stack) -> Stack:
        data = stack.dense()
        kernels = data.transpose(1, 2) if is_turned else data
        products = matrix_product(kernels.reshape(stack.count, results, -1), columns)
        turned = products.view(stack.count, results, samples, -1).transpose(1, 2)
        return Stack(turned.reshape(stack.count, *out.shape), tuple(out.shape))

    return builder.step("convolution", source, out.shape, out.dtype, apply)


def _correlated(
    builder: Builder,
    source: int,
    given: Tensor,
    windows: Windows,
    counts: Sequence[int],
    out: Reference,
    *,
    is_turned: bool = False,
) -> int:
    """Append the pullback of `_weighted`: the sums over windows of what they read times a value.

    Args:
        builder: The program.
        source: The value's step.
        given: What the windows read, which is constant.
        windows: The windows.
        counts: The numbers of windows.
        out: The result.
        is_turned: Whether the result is the kernel turned.
    """
    read = stack_windows.unfolded(given, windows, counts)
    if is_turned:
        read = read.flip(2)
    channels = read.shape[1]
    lines = read.permute(0, 3, 1, 2).reshape(read.shape[0] * read.shape[3], -1).contiguous()

    def apply(stack: Stack) -> Stack:
        data = stack.dense().flatten(3).transpose(1, 2)
        products = matrix_product(data.reshape(*data.shape[:2], -1), lines)
        kernels = products.view(*data.shape[:2], channels, -1)
        kernels = kernels.transpose(1, 2) if is_turned else kernels
        return Stack(kernels.reshape(stack.count, *out.shape), tuple(out.shape))

    return builder.step("convolution", source, out.shape, out.dtype, apply)


def _summed(builder: Builder, source: int, out: Reference, rank: int) -> int:
    dims = (0, *range(2, rank))
    apply = partial(stack_operators.total, dims=dims, keepdim=False)
    return builder.step("sum", source, out.shape, out.dtype, apply)


@rule(_aten.im2col)
def _im2col(builder: Builder, call: Call) -> Any:
    source, *given = call.args
    out = output_of(call)
    if len(source.shape) != 4:
        return NotImplemented
    windows, counts = _columns(source.shape[2:], *given)

    def apply(stack: Stack) -> Stack:
        read = stack_windows.windows_of(stack, windows, counts)
        return stack_operators.reshape(read, out.shape)

    return builder.step("convolution", step_of(builder, source), out.shape, out.dtype, apply)


@rule(_aten.col2im)
def _col2im(builder: Builder, call: Call) -> Any:
    source, sizes, *given = call.args
    out = output_of(call)
    if len(source.shape) != 3:
        return NotImplemented
    windows, counts = _columns(sizes, *given)
    shape = (*out.shape[:2], *windows.kernel, *counts)

    def apply(stack: Stack) -> Stack:
        columns = stack_operators.reshape(stack, shape)
        return stack_windows.summed_windows(columns, windows, out.shape)

    return builder.step("convolution", step_of(builder, source), out.shape, out.dtype, apply)


def _columns(
    sizes: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> tuple[Windows, list[int]]:
    """Return the windows of an image of given sizes that are columns of a matrix, and how many."""
    windows = Windows(tuple(kernel), tuple(stride), tuple(padding), tuple(dilation))
    counts = [
        (size + 2 * before - apart * (length - 1) - 1) // step + 1
        for size, length, step, before, apart in zip(
            sizes, kernel, stride, padding, dilation, strict=True
        )
    ]
    return windows, counts


@rule(_aten.avg_pool2d, _aten.avg_pool2d_backward)
def _average(builder: Builder, call: Call) -> Any:
    is_backward = call.operator.overloadpacket is _aten.avg_pool2d_backward
    given = (*call.args[2 if is_backward else 1 :], *(None,) * 6)
    kernel, stride, padding, ceil_mode, _, divisor = given[:6]
    whole = call.args[1] if is_backward else call.args[0]
    sizes = _two(kernel)
    is_whole = ceil_mode and any(n % k for n, k in zip(whole.shape[-2:], sizes, strict=True))
    if not only_first(builder, call) or call.kwargs or is_whole:
        return NotImplemented
    if any(padding or ()) or (stride and _two(stride) != sizes):
        return NotImplemented
    # The factor belongs where there are fewer elements.
    source, factor = call.args[0], 1 / (divisor or math.prod(sizes))
    number = step_of(builder, source)
    if is_backward:
        number = builder.add(combination((number,), (factor,), source.shape, source.dtype))
        return _resampled(builder, number, sizes, output_of(call), is_sum=False)
    number, out = _resampled(builder, number, sizes, output_of(call), is_sum=True), output_of(call)
    return builder.add(combination((number,), (factor,), out.shape, out.dtype))


@rule(_aten.upsample_nearest2d, _aten.upsample_nearest2d_backward)
def _nearest(builder: Builder, call: Call) -> Any:
    source, out = call.args[0], output_of(call)
    is_backward = call.operator.overloadpacket is _aten.upsample_nearest2d_backward
    scales = [each for each in call.args[3 if is_backward else 2 :] if each is not None]
    large, small = (source, out) if is_backward else (out, source)
    pairs = list(zip(large.shape[-2:], small.shape[-2:], strict=True))
    sizes = (pairs[0][0] // max(pairs[0][1], 1), pairs[1][0] // max(pairs[1][1], 1))
    if not only_first(builder, call) or call.kwargs or any(n % max(m, 1) for n, m in pairs):
        return NotImplemented
    if scales and tuple(scales) != sizes:
        return NotImplemented
    return _resampled(builder, step_of(builder, source), sizes, out, is_sum=is_backward)


def _resampled(
    builder: Builder, source: int, sizes: tuple[int, int], out: Reference, *, is_sum: bool
) -> int:
    """Append the sums over windows, or the repetition over windows."""
    operator = stack_windows.pooled if is_sum else stack_windows.repeated
    apply = partial(operator, sizes=sizes, shape=tuple(out.shape))
    return builder.step("resample", source, out.shape, out.dtype, apply)


def _two(sizes: Any) -> tuple[int, int]:
    return (sizes[0], sizes[-1])
