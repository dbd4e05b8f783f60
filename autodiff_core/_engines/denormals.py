"""Compute without denormal numbers, with which processors are up to a hundred times slower.

Derivatives along a chain of many steps decay, in single precision soon below the smallest normal
number, 1.2e-38. Flushing such numbers to zero is fast but loses them. As the map is linear, the
vectors can be multiplied by a power of two first, and the images divided by it with denormal
numbers allowed again: what is flushed in between is then smaller than the smallest denormal number,
and the images are at least as exact as without scaling. Only the constants of the map are not
scaled: one that has denormal numbers is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from autodiff_core._programs.program import Memory, Program
from autodiff_core._programs.recording import Recording
from autodiff_core._programs.stacks import Stack
from autodiff_core._tensors.tree import leaves_of_arguments

_SCALES = {
    torch.float32: 2.0**32,
    torch.complex64: 2.0**32,
    torch.float64: 2.0**64,
    torch.complex128: 2.0**64,
}
"""More than 1 / eps, of which denormal numbers lack precision; small enough to leave room above."""

_SMALLEST_SHARE = 1e-3
"""The share of denormal numbers above which they cost more time than all others."""


def has_denormals(images: Sequence[Tensor]) -> bool:
    """Return whether so many elements of an image are denormal numbers that they cost time."""
    return any(_denormals(each).float().mean() > _SMALLEST_SHARE for each in images if each.numel())


def has_denormal_constants(recording: Recording) -> bool:
    """Return whether a constant of a recorded map has a denormal number, or is one."""
    dtypes = {each.dtype for call in recording.calls for each in call.outputs if each is not None}
    normal = [torch.finfo(dtype).smallest_normal for dtype in dtypes & _SCALES.keys()]
    smallest = max(normal, default=0.0)
    given = [leaves_of_arguments((call.args, call.kwargs)) for call in recording.calls]
    # Each once: many calls take the same ones.
    tensors = {id(each): each for leaves in given for each in leaves if isinstance(each, Tensor)}
    numbers = {each for leaves in given for each in leaves if isinstance(each, float | complex)}
    parts = [abs(part) for number in numbers for part in (number.real, number.imag)]
    return any(0 < part < smallest for part in parts) or any(
        _denormals(each).any() for each in tensors.values()
    )


def _denormals(values: Tensor) -> Tensor:
    """Return which elements of a tensor of any dtype are denormal numbers."""
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    if not values.dtype.is_floating_point:
        return torch.zeros_like(values, dtype=torch.bool)
    size = values.abs()
    return (size > 0) & (size < torch.finfo(values.dtype).smallest_normal)


def can_be_scaled(program: Program) -> bool:
    """Return whether all numbers of a program are of a processor, in single or double precision."""
    dtypes = {*program.dtypes, *(step.dtype for step in program.steps.values())}
    kinds = {device.type for device in program.devices}
    return dtypes <= _SCALES.keys() and kinds == {"cpu"}


def scaled_images(
    program: Program, stacks: Sequence[Stack], count: int, memory: Memory | None
) -> tuple[Tensor, ...] | None:
    """Return the images of vectors that are scaled in between; None if a number overflows.

    Args:
        program: The program; `can_be_scaled` holds.
        stacks: The vectors.
        count: How many vectors there are.
        memory: As in `Program.apply`.
    """
    scale = max(_SCALES[step.dtype] for step in program.steps.values())
    larger = [replace(stack, data=stack.data * scale) for stack in stacks]
    with _flushing():
        images = program.apply(larger, count, memory)
    # An infinite element stays infinite, or makes the sum NaN.
    if not all(math.isfinite(image.sum()) for image in images):
        return None
    if memory is None:
        return tuple(image * (1 / scale) for image in images)
    return tuple(image.mul_(1 / scale) for image in images)


@contextmanager
def _flushing() -> Iterator[None]:
    """Make this thread compute with zeros in the place of denormal numbers.

    Other threads of torch may compute with denormal numbers meanwhile, which is slower, not wrong.
    """
    smallest = torch.tensor(torch.finfo(torch.float32).smallest_normal)
    was_flushing = float(smallest * 0.5) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)
