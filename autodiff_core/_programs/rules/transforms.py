"""Rules for Fourier transforms and for the real and imaginary parts of numbers.

The spectrum of real numbers has two equal halves, of which one need not be computed. So the real
part of a transform back, of multiples of such spectra, is computed from their halves: J. W. Cooley,
P. A. W. Lewis, P. D. Welch, "The fast Fourier transform algorithm: programming considerations"
(1970).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.registry import (
    Padding,
    check_zero,
    is_live,
    output_of,
    rule,
    step_of,
)
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import combination
from autodiff_core._tensors.linear_combination import Coefficient, composed, numeric

_aten = torch.ops.aten

_MOST_TERMS = 4
"""Products of more halves of spectra take longer than the other half of a transform."""


@dataclass(frozen=True)
class _Reals:
    """A note that a step only gives real numbers another dtype."""

    source: int


@dataclass(frozen=True)
class _Parts:
    """A note that a step gives the real and imaginary parts of complex numbers."""

    source: int


@dataclass(frozen=True)
class _Conjugate:
    """A note that a step conjugates."""

    source: int


@dataclass(frozen=True)
class _Transform:
    """A note that a step is a transform along dimensions, the last of which would be halved."""

    source: int
    dims: tuple[int, ...]
    norm: int
    is_forward: bool
    is_of_reals: bool


def to_complex(builder: Builder, source: int, out: Reference) -> int:
    """Append the change of real numbers to a complex dtype; return the step's number."""

    def apply(stack: Stack) -> Stack:
        return replace(stack, data=stack.data.to(out.dtype))

    number = builder.step("convert", source, out.shape, out.dtype, apply)
    builder.notes[number] = _Reals(source)
    return number


@rule(_aten.complex)
def _complex(builder: Builder, call: Call) -> Any:
    out, numbers, factors = output_of(call), [], []
    for part, factor in zip(call.args, (None, 1j), strict=True):
        if isinstance(part, Tensor):
            check_zero(part)
        elif is_live(builder, part):
            numbers.append(
                to_complex(builder, step_of(builder, part), replace(out, shape=part.shape))
            )
            factors.append(factor)
    return builder.add(combination(numbers, factors, out.shape, out.dtype))


@rule(_aten.view_as_complex)
def _view_as_complex(builder: Builder, call: Call) -> Any:
    source, out = step_of(builder, call.args[0]), output_of(call)
    padding = builder.notes.get(source)
    if isinstance(padding, Padding) and padding.shape == tuple(out.shape):
        is_first = padding.dim == len(out.shape) and padding.start == 0
        if is_first:
            return to_complex(builder, padding.source, out)

    def apply(stack: Stack) -> Stack:
        stack = _dense_along(stack, (len(out.shape),))
        data = torch.view_as_complex(stack.data.contiguous())
        return replace(stack, data=data, shape=out.shape)

    return builder.step("convert", source, out.shape, out.dtype, apply)


@rule(_aten.view_as_real)
def _view_as_real(builder: Builder, call: Call) -> Any:
    source, out = step_of(builder, call.args[0]), output_of(call)

    def apply(stack: Stack) -> Stack:
        return replace(stack, data=torch.view_as_real(stack.data.resolve_conj()), shape=out.shape)

    number = builder.step("convert", source, out.shape, out.dtype, apply)
    builder.notes[number] = _Parts(source)
    return number


@rule(_aten._conj)
def _conj(builder: Builder, call: Call) -> int:
    """Conjugate; of a multiple of a conjugate, as torch's tangents are, multiply instead."""
    source, out = step_of(builder, call.args[0]), output_of(call)
    number = source
    factor: Coefficient = None
    while True:
        note, step = builder.notes.get(number), builder.program.steps.get(number)
        if isinstance(note, _Conjugate):
            if isinstance(factor, Tensor):
                factor = factor.conj().resolve_conj()
            elif factor is not None:
                factor = factor.conjugate()
            return builder.add(combination((note.source,), (factor,), out.shape, out.dtype))
        if step is None or step.kind != "combine" or len(step.coefficients) != 1:
            break
        if step.shape != out.shape or step.dtype != out.dtype:
            break
        number = step.inputs[0]
        factor = composed(step.coefficients[0], factor, out.dtype)

    def apply(stack: Stack) -> Stack:
        return replace(stack, data=stack.data.conj().resolve_conj())

    number = builder.step("convert", source, out.shape, out.dtype, apply)
    builder.notes[number] = _Conjugate(source)
    return number


@rule(_aten._fft_r2c)
def _of_reals(builder: Builder, call: Call) -> Any:
    source, dims, norm, is_half = call.args
    return _spectrum(builder, step_of(builder, source), dims, norm, output_of(call), is_half)


@rule(_aten._fft_c2c)
def _of_complex(builder: Builder, call: Call) -> Any:
    source, dims, norm, is_forward = call.args
    number, out = step_of(builder, source), output_of(call)
    reals = builder.notes.get(number)
    if isinstance(reals, _Reals) and is_forward:
        return _spectrum(builder, reals.source, dims, norm, out, False)
    dims = tuple(dim % len(out.shape) for dim in dims)
    places = [dim + 1 for dim in dims]
    found = _transform(
        builder, number, dims, out, lambda data: _aten._fft_c2c(data, places, norm, is_forward)
    )
    builder.notes[found] = _Transform(number, dims, norm, is_forward, False)
    return found


@rule(_aten._fft_c2r)
def _to_reals(builder: Builder, call: Call) -> Any:
    source, dims, norm, _ = call.args
    return _back(builder, step_of(builder, source), dims, norm, output_of(call))


def real_part(builder: Builder, parts: int, out: Reference) -> int | None:
    """Append the real part of a transform back; return the step's number, None if it is another.

    Args:
        builder: The program.
        parts: The number of the step that gives real and imaginary parts.
        out: The real part.
    """
    note = builder.notes.get(parts)
    note = builder.notes.get(note.source) if isinstance(note, _Parts) else None
    if not isinstance(note, _Transform) or note.is_forward:
        return None
    half = _half_of_multiples(builder, note.source, note.dims)
    if half is None:
        half = _half_of_padded(builder, note, out)
    return None if half is None else _back(builder, half, note.dims, note.norm, out)


def _spectrum(
    builder: Builder, source: int, dims: Any, norm: int, out: Reference, is_half: bool
) -> int:
    dims = tuple(dim % len(out.shape) for dim in dims)
    places = [dim + 1 for dim in dims]
    found = _transform(
        builder, source, dims, out, lambda data: _aten._fft_r2c(data, places, norm, is_half)
    )
    if not is_half:
        builder.notes[found] = _Transform(source, dims, norm, True, True)
    return found


def _back(builder: Builder, source: int, dims: Any, norm: int, out: Reference) -> int:
    """Append the transform of half a spectrum to real numbers; return the step's number."""
    *others, last = [dim % len(out.shape) + 1 for dim in dims]
    length = out.shape[last - 1]

    def back(data: Tensor) -> Tensor:
        if others:
            data = _aten._fft_c2c(data, others, norm, False)
        return _aten._fft_c2r(data, [last], norm, length)

    return _transform(builder, source, tuple(dims), out, back)


def _transform(
    builder: Builder,
    source: int,
    dims: tuple[int, ...],
    out: Reference,
    operator: Callable[[Tensor], Tensor],
) -> int:
    def apply(stack: Stack) -> Stack:
        stack = _dense_along(stack, dims)
        return replace(stack, data=operator(stack.data.resolve_conj()), shape=out.shape)

    return builder.step("transform", source, out.shape, out.dtype, apply)


def _dense_along(stack: Stack, dims: tuple[int, ...]) -> Stack:
    """Return a stack of which no zeros are known along dimensions."""
    stack = stack.spread()
    return Stack(stack.dense(), stack.shape) if stack.dim in dims else stack


def _half_of_multiples(builder: Builder, number: int, dims: tuple[int, ...]) -> int | None:
    """Append half of what is real in a sum of multiples of spectra of real numbers.

    Returns:
        The step's number; None if the sum is another.
    """
    terms: dict[int, Coefficient] = {}
    step = builder.program.steps.get(number)
    if step is None or not _collect(builder, number, None, dims, terms):
        return None
    factors = [
        _halved(each, step.shape, step.dtype, dims, is_symmetric=False) for each in terms.values()
    ]
    shape = _half_shape(step.shape, dims)
    return builder.add(combination([*terms], factors, shape, step.dtype))


def _collect(
    builder: Builder,
    number: int,
    factor: Coefficient,
    dims: tuple[int, ...],
    terms: dict[int, Coefficient],
) -> bool:
    """Add a multiple of a step to terms, by halves of spectra; return whether that is possible."""
    half = _half(builder, number, dims)
    if half is not None:
        if half in terms:
            before, added = (1.0 if f is None else f for f in (terms[half], factor))
            terms[half] = before + added
            return True
        terms[half] = factor
        return len(terms) <= _MOST_TERMS
    step = builder.program.steps.get(number)
    if step is None or step.kind != "combine":
        return False
    for source, own in zip(step.inputs, step.coefficients, strict=True):
        inner = builder.program.steps.get(source)
        if inner is None or inner.shape != step.shape:
            return False
        if not _collect(builder, source, composed(own, factor, step.dtype), dims, terms):
            return False
    return True


def _half(builder: Builder, number: int, dims: tuple[int, ...]) -> int | None:
    """Append half of a symmetric spectrum; return the step's number, None if it is another."""
    key = ("half", number, dims)
    if key not in builder.notes:
        builder.notes[key] = _new_half(builder, number, dims)
    return builder.notes[key]


def _new_half(builder: Builder, number: int, dims: tuple[int, ...]) -> int | None:
    step, note = builder.program.steps.get(number), builder.notes.get(number)
    if step is None:
        return None
    shape = _half_shape(step.shape, dims)
    if isinstance(note, _Transform) and note.is_of_reals and note.dims == dims:
        places, norm = [dim + 1 for dim in dims], note.norm
        apply = partial(_halves, dims=dims, places=places, norm=norm, shape=shape)
        return builder.step("transform", note.source, shape, step.dtype, apply)
    if step.kind != "combine":
        return None
    shapes = [builder.program.steps[each].shape for each in step.inputs if each >= 0]
    if len(shapes) < len(step.inputs) or any(each != step.shape for each in shapes):
        return None
    factors = []
    for coefficient in step.coefficients:
        factor = _halved(coefficient, step.shape, step.dtype, dims, is_symmetric=True)
        if factor is None and coefficient is not None:
            return None
        factors.append(factor)
    halves = [_half(builder, each, dims) for each in step.inputs]
    if any(each is None for each in halves):
        return None
    sources = [each for each in halves if each is not None]
    return builder.add(combination(sources, factors, shape, step.dtype))


def _halves(
    stack: Stack, dims: tuple[int, ...], places: list[int], norm: int, shape: tuple[int, ...]
) -> Stack:
    stack = _dense_along(stack, dims)
    return replace(stack, data=_aten._fft_r2c(stack.data, places, norm, True), shape=shape)


def _half_shape(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    last = dims[-1]
    return (*shape[:last], shape[last] // 2 + 1, *shape[last + 1 :])


def _halved(
    factor: Coefficient,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    dims: tuple[int, ...],
    *,
    is_symmetric: bool,
) -> Coefficient:
    """Return the part of a factor of spectra that keeps their symmetry, for half of them.

    Args:
        factor: The factor.
        shape: The shape of the whole spectrum.
        dtype: Its dtype.
        dims: The dimensions of the transform.
        is_symmetric: Whether all of the factor must do so; otherwise the result is None.
    """
    factor = numeric(factor, dtype)
    if not isinstance(factor, Tensor):
        if isinstance(factor, complex) and factor.imag:
            return None if is_symmetric else factor.real
        return factor
    whole = factor.to(dtype).expand(shape)
    turned = whole.flip(dims).roll([1] * len(dims), dims).conj().resolve_conj()
    if is_symmetric and not torch.equal(whole, turned):
        return None
    half = ((whole + turned) / 2).narrow(dims[-1], 0, shape[dims[-1]] // 2 + 1).contiguous()
    return half if half.imag.any() else half.real.contiguous()


def _half_of_padded(builder: Builder, note: _Transform, out: Reference) -> int | None:
    """Append the half of which a transform back has the real part of that of padded numbers.

    Returns:
        The step's number; None if the numbers are not padded to twice their length.
    """
    padding, last = builder.notes.get(note.source), note.dims[-1]
    shape = _half_shape(tuple(out.shape), note.dims)
    if not isinstance(padding, Padding) or padding.shape != shape:
        return None
    if padding.dim != last or padding.start:
        return None
    length, half = out.shape[last], shape[last]
    factors = torch.full((half,), 0.5, dtype=out.dtype, device=out.device)
    factors[0] = 1
    if length % 2 == 0:
        factors[-1] = 1
    factors = factors.view(-1, *(1,) * (len(shape) - 1 - last))
    dtype = builder.program.steps[note.source].dtype
    return builder.add(combination((padding.source,), (factors,), shape, dtype))
