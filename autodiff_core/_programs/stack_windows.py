"""Convolutions and pooling of stacks, on the part that a support can reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from autodiff_core._programs.stacks import Stack, simplest, take


@dataclass(frozen=True)
class Windows:
    """Where a convolution reads, for each spatial dimension.

    Attributes:
        kernel: The lengths of the kernel.
        stride: The distances of two windows.
        padding: The numbers of zeros before the first position; negative where some are left out.
        dilation: The distances of two elements of a window.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def are_adjacent(self) -> bool:
        """Whether all strides are one."""
        return all(step == 1 for step in self.stride)

    def transposed(self) -> Windows:
        """Return the windows of the transposed convolution, which must be adjacent."""
        sizes = zip(self.kernel, self.padding, self.dilation, strict=True)
        return replace(self, padding=tuple(d * (k - 1) - p for k, p, d in sizes))

    def reached(self, place: int, support: range, length: int) -> tuple[range, range]:
        """Return the windows that a support reaches, and the positions that these read.

        Args:
            place: Which spatial dimension it is.
            support: The positions along it.
            length: The number of windows along it.
        """
        reach = self.dilation[place] * (self.kernel[place] - 1)
        stride, padding = self.stride[place], self.padding[place]
        first = max(0, -((reach - support.start - padding) // stride))
        last = min(length, (support.stop - 1 + padding) // stride + 1)
        last = max(first, last)
        start = first * stride - padding
        return range(first, last), range(start, start + (last - first - 1) * stride + reach + 1)


def convolved(stack: Stack, weight: Tensor, windows: Windows, shape: tuple[int, ...]) -> Stack:
    """Return the convolutions of a stack with a constant.

    Args:
        stack: Each vector of shape (samples, channels, *positions).
        weight: Shape (results, channels, *kernel).
        windows: Where it reads.
        shape: The shape of one result, (samples, results, *windows).
    """
    stack = stack.spread()
    padding = [(p, p) for p in windows.padding]
    dim, support = stack.dim, stack.support
    if dim == 1 and support is not None:
        weight, dim, support = take(weight, 1, support), None, None
    elif dim is not None and dim > 1:
        place = dim - 2
        if not isinstance(support, range) or not support:
            stack = Stack(stack.dense(), stack.shape)
            dim, support = None, None
        else:
            found, read = windows.reached(place, support, shape[dim])
            if not found:
                return Stack(stack.data.new_zeros(()).expand(stack.count, *shape), shape)
            padding[place] = (support.start - read.start, read.stop - support.stop)
            support = found
    data = _convolved(stack.data, weight, windows, padding)
    return simplest(Stack(data, shape, dim, support))


def _convolved(
    data: Tensor, weight: Tensor, windows: Windows, padding: Sequence[tuple[int, int]]
) -> Tensor:
    given = data.reshape(-1, *data.shape[2:])
    is_even = all(before == after >= 0 for before, after in padding)
    if not is_even:
        given = functional.pad(given, [size for pair in reversed(padding) for size in pair])
    sizes = [before if is_even else 0 for before, _ in padding]
    zeros = [0] * len(sizes)
    made = torch.ops.aten.convolution(
        given, weight, None, windows.stride, sizes, windows.dilation, False, zeros, 1
    )
    return made.reshape(*data.shape[:2], *made.shape[1:])


def windows_of(stack: Stack, windows: Windows, counts: Sequence[int]) -> Stack:
    """Return what each window of a stack reads.

    Args:
        stack: Each vector of shape (samples, channels, *positions).
        windows: Where they read.
        counts: The numbers of windows.

    Returns:
        Each vector of shape (samples, channels, *kernel, *counts).
    """
    stack, spatial = stack.spread(), len(counts)
    shape = (*stack.shape[:2], *windows.kernel, *counts)
    dim, support, lengths = stack.dim, stack.support, list(counts)
    starts = [-each for each in windows.padding]
    if dim is not None and dim > 1:
        if not isinstance(support, range) or not support:
            stack = Stack(stack.dense(), stack.shape)
            dim, support = None, None
        else:
            place = dim - 2
            found, read = windows.reached(place, support, counts[place])
            if not found:
                return Stack(stack.data.new_zeros(()).expand(stack.count, *shape), shape)
            starts[place], lengths[place] = read.start - support.start, len(found)
            dim, support = 2 + spatial + place, found
    placed = replace(windows, padding=tuple(-each for each in starts))
    data = unfolded(stack.data.flatten(0, 1), placed, lengths)
    data = data.view(*stack.data.shape[:3], *windows.kernel, *lengths)
    return simplest(Stack(data, shape, dim, support))


def summed_windows(stack: Stack, windows: Windows, shape: tuple[int, ...]) -> Stack:
    """Return the sums of what windows hold, by position: transposed `windows_of`.

    Args:
        stack: Each vector of shape (samples, channels, *kernel, *counts).
        windows: Where they read.
        shape: The shape of one result, (samples, channels, *positions).
    """
    stack, spatial = stack.spread(), len(windows.kernel)
    if stack.dim is not None and (stack.dim < 2 + spatial or not isinstance(stack.support, range)):
        stack = Stack(stack.dense(), stack.shape) if stack.dim > 1 else stack
    counts = stack.data.shape[3 + spatial :]
    firsts = [0] * spatial
    if isinstance(stack.support, range) and stack.dim is not None and stack.dim > 1:
        firsts[stack.dim - 2 - spatial] = stack.support.start
    sizes, starts = [], []
    for place, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        stride = windows.stride[place]
        reach = windows.dilation[place] * (windows.kernel[place] - 1)
        sizes.append(max(count - 1, 0) * stride + reach + 1)
        starts.append(first * stride - windows.padding[place])
    total = stack.data.new_zeros((*stack.data.shape[:3], *sizes))
    for element in product(*map(range, windows.kernel)):
        part = stack.data[(slice(None),) * 3 + element]
        target = total
        for place, offset in enumerate(element):
            at, stride = offset * windows.dilation[place], windows.stride[place]
            target = _every(target, 3 + place, at, stride, counts[place])
        target.add_(part)
    kept = []
    for place, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        inside = range(max(start, 0), min(start + size, shape[2 + place]))
        inside = range(inside.start, max(inside.start, inside.stop))
        total = total.narrow(3 + place, inside.start - start, len(inside)) if inside else total
        kept.append(inside)
    if not all(kept):
        return Stack(total.new_zeros(()).expand(stack.count, *shape), shape)
    if stack.dim is not None and stack.dim < 2:
        return Stack(_padded(total, kept, shape), shape, stack.dim, stack.support)
    partial = [place for place, each in enumerate(kept) if len(each) < shape[2 + place]]
    if len(partial) == 1:
        return Stack(total, shape, 2 + partial[0], kept[partial[0]])
    return Stack(_padded(total, kept, shape), shape)


def _padded(data: Tensor, kept: Sequence[range], shape: Sequence[int]) -> Tensor:
    """Return spatial positions with zeros where none are kept."""
    pads = []
    for inside, size in zip(reversed(kept), reversed(shape[2:]), strict=False):
        pads += [inside.start, size - inside.stop]
    return functional.pad(data, pads) if any(pads) else data


def unfolded(given: Tensor, windows: Windows, counts: Sequence[int]) -> Tensor:
    """Return what each window of a constant reads.

    Args:
        given: Shape (samples, channels, *positions).
        windows: Where they read.
        counts: The numbers of windows.

    Returns:
        Shape (samples, channels, kernel elements, windows).
    """
    dims = len(counts)
    pads = []
    for place in reversed(range(dims)):
        before, length = windows.padding[place], given.shape[2 + place]
        reach = windows.dilation[place] * (windows.kernel[place] - 1)
        stop = (counts[place] - 1) * windows.stride[place] - before + reach + 1
        pads += [before, stop - length]
    found = functional.pad(given, pads)
    for place in range(dims):
        dilation = windows.dilation[place]
        span = dilation * (windows.kernel[place] - 1) + 1
        found = found.unfold(2 + place, span, windows.stride[place])[..., ::dilation]
    order = (0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims))
    return found.permute(order).flatten(2, 1 + dims).flatten(3)


def pooled(stack: Stack, sizes: tuple[int, int], shape: tuple[int, ...]) -> Stack:
    """Return the sums over adjacent windows of the last two dimensions.

    Args:
        stack: The stack.
        sizes: The lengths of a window.
        shape: The shape of one result; positions beyond the last whole window are left out.
    """

    def apply(data: Tensor, lengths: Sequence[int]) -> Tensor:
        for dim, size, length in zip((-2, -1), sizes, lengths, strict=True):
            if size > 1 or data.shape[dim] != length:
                parts = [_every(data, dim, start, size, length) for start in range(size)]
                data = sum(parts[1:], parts[0])
        return data

    def reached(place: int, support: range) -> tuple[range, range]:
        size = sizes[place]
        found = range(
            support.start // size, min(-(-support.stop // size), shape[len(shape) - 2 + place])
        )
        return found, range(found.start * size, found.stop * size)

    return _windowed(stack, shape, reached, apply)


def repeated(stack: Stack, sizes: tuple[int, int], shape: tuple[int, ...]) -> Stack:
    """Return each element of the last two dimensions repeated over a window: transposed `pooled`.

    Args:
        stack: The stack.
        sizes: The lengths of a window.
        shape: The shape of one result; positions beyond the last window are zero.
    """

    def apply(data: Tensor, lengths: Sequence[int]) -> Tensor:
        for dim, size, length in zip((-1, -2), sizes[::-1], lengths[::-1], strict=True):
            count = data.shape[dim]
            if size > 1 or count != length:
                whole = list(data.shape)
                whole[dim] = length
                is_covered = count * size == length
                out = data.new_empty(whole) if is_covered else data.new_zeros(whole)
                for start in range(size):
                    _every(out, dim, start, size, count).copy_(data)
                data = out
        return data

    def reached(place: int, support: range) -> tuple[range, range]:
        size = sizes[place]
        return range(support.start * size, support.stop * size), support

    return _windowed(stack, shape, reached, apply)


def _every(data: Tensor, dim: int, start: int, step: int, count: int) -> Tensor:
    """Return the positions start, start + step, ..., as many as asked for, along a dimension."""
    places = [slice(None)] * data.dim()
    places[dim] = slice(start, start + (count - 1) * step + 1, step)
    return data[tuple(places)]


def _windowed(
    stack: Stack,
    shape: tuple[int, ...],
    reached: Callable[[int, range], tuple[range, range]],
    apply: Callable[[Tensor, Sequence[int]], Tensor],
) -> Stack:
    """Apply a map of the last two dimensions to the part that a support can reach.

    Args:
        stack: The stack.
        shape: The shape of one result.
        reached: Returns, for one of the two dimensions and a support, the positions of the result
            that it reaches and those of the argument that these read.
        apply: Maps data; its second argument is the last two lengths of the result.
    """
    stack = stack.spread()
    place = None if stack.dim is None else stack.dim - (len(shape) - 2)
    if stack.dim is None or place is None or place < 0:
        return Stack(apply(stack.data, shape[-2:]), shape, stack.dim, stack.support)
    if not isinstance(stack.support, range) or not stack.support:
        return Stack(apply(stack.dense(), shape[-2:]), shape)
    found, read = reached(place, stack.support)
    if not found:
        return Stack(stack.data.new_zeros(()).expand(stack.count, *shape), shape)
    pads = [0] * 4
    pads[2 - 2 * place : 4 - 2 * place] = (
        stack.support.start - read.start,
        read.stop - stack.support.stop,
    )
    data = functional.pad(stack.data, pads) if any(pads) else stack.data
    lengths = list(shape[-2:])
    lengths[place] = len(found)
    return simplest(Stack(apply(data, lengths), shape, stack.dim, found))
