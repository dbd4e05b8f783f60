"""Rules for writes into a part of a tensor, as functionalization makes them of work in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.indexing import gathered
from autodiff_core._programs.rules.layout import slice_of
from autodiff_core._programs.rules.registry import (
    Padding,
    Part,
    check_zero,
    is_live,
    output_of,
    rule,
    scaled,
    step_of,
)
from autodiff_core._programs.rules.scattering import scattered
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import Step

_aten = torch.ops.aten


@rule(_aten.slice_scatter, _aten.select_scatter)
def _scatter_part(builder: Builder, call: Call) -> Any:
    target, source, *given = call.args
    out = output_of(call)
    if call.kwargs or not out.shape:
        return NotImplemented
    dim = (given[0] if given else 0) % len(out.shape)
    size = out.shape[dim]
    if call.operator.overloadpacket is _aten.select_scatter:
        start = given[1] % size
        taken = range(start, start + 1)
    else:
        taken = range(*slice_of(given[1:], size))
    if len(taken) == size and call.operator.overloadpacket is _aten.slice_scatter:
        return builder.numbers[source.value] if isinstance(source, Reference) else NotImplemented
    for each in (target, source):
        if not isinstance(each, Reference):
            check_zero(each)
    part = (*out.shape[:dim], len(taken), *out.shape[dim + 1 :])
    if not is_live(builder, target) and taken.step == 1:
        return _padded(builder, source, dim, taken, part, out)
    if not is_live(builder, target):
        positions = torch.arange(taken.start, taken.stop, taken.step, device=out.device)
        return scattered(builder, step_of(builder, source), dim, positions, out.shape, out)

    if is_live(builder, source) and taken.step == 1:
        factor = _scaling(builder, step_of(builder, source), step_of(builder, target), dim, taken)
        if factor is not None:
            factors = torch.ones(size, dtype=factor.dtype, device=out.device)
            factors[taken.start : taken.stop] = factor
            factors = factors.view(-1, *(1,) * (len(out.shape) - 1 - dim))
            return scaled(builder, call, target, factors)

    def write(data: Tensor, written: Tensor | None) -> None:
        within = (*(slice(None),) * (dim + 1), slice(taken.start, taken.stop, taken.step))
        place = data[within]
        if written is None:
            place.zero_()
        else:
            place.copy_(written.reshape(place.shape))

    return _overwritten(builder, call, write)


def _scaling(builder: Builder, written: int, target: int, dim: int, taken: range) -> Tensor | None:
    """Return the factor of what is written, if it is a multiple of what it overwrites."""
    step, factor = builder.program.steps.get(written), 1.0
    while step is not None and step.kind == "combine" and len(step.inputs) == 1:
        own = step.coefficients[0]
        if isinstance(own, Tensor):
            return None
        factor *= 1.0 if own is None else own
        written = step.inputs[0]
        if builder.notes.get(written) == Part(target, dim, taken):
            real = torch.empty((), dtype=step.dtype).real.dtype
            is_real = not isinstance(factor, complex)
            return torch.tensor(factor, dtype=real if is_real else step.dtype)
        step = builder.program.steps.get(written)
    return None


@rule(_aten.as_strided_scatter)
def _as_strided_scatter(builder: Builder, call: Call) -> Any:
    target, source, size, stride = call.args[:4]
    offset = call.args[4] if len(call.args) > 4 else 0
    out = output_of(call)
    if not target.is_contiguous if isinstance(target, Reference) else not target.is_contiguous():
        return NotImplemented
    for each in (target, source):
        if not isinstance(each, Reference):
            check_zero(each)
    elements = torch.arange(torch.Size(out.shape).numel(), device=out.device)
    positions = elements.as_strided(size, stride, offset or 0).reshape(-1)
    if not is_live(builder, target):
        number = step_of(builder, source)
        return scattered(builder, number, 0, positions, (len(elements),), out)

    def write(data: Tensor, written: Tensor | None) -> None:
        lines = data.view(len(data), -1)
        if written is None:
            lines.index_fill_(1, positions, 0)
        else:
            lines.index_copy_(1, positions, written.reshape(len(data), -1))

    return _overwritten(builder, call, write)


def _overwritten(
    builder: Builder, call: Call, write: Callable[[Tensor, Tensor | None], None]
) -> int:
    """Append a write of the second value of a call, or of zeros, into the first."""
    target, source = call.args[:2]
    out = output_of(call)
    inputs = [target, source] if is_live(builder, source) else [target]

    def apply(whole: Stack, *written: Stack, spare: Sequence[bool] = ()) -> Stack:
        data = whole.dense()
        if not (spare and spare[0] and whole.dim is None and data.is_contiguous()):
            data = data.clone(memory_format=torch.contiguous_format)
        write(data, written[0].dense() if written else None)
        return Stack(data, out.shape)

    sources = tuple(step_of(builder, each) for each in inputs)
    return builder.add(Step("overwrite", sources, out.shape, out.dtype, apply))


def _padded(
    builder: Builder,
    source: Reference,
    dim: int,
    taken: range,
    part: tuple[int, ...],
    out: Reference,
) -> int:
    def apply(stack: Stack) -> Stack:
        return stack_operators.pad(
            stack_operators.reshape(stack, part), dim, taken.start, out.shape[dim]
        )

    number = builder.step("pad", step_of(builder, source), out.shape, out.dtype, apply)
    builder.notes[number] = Padding(step_of(builder, source), source.shape, dim, taken.start)
    return number


@rule(_aten.as_strided)
def _as_strided(builder: Builder, call: Call) -> Any:
    source, size, stride = call.args[:3]
    offset = call.args[3] if len(call.args) > 3 else 0
    if not source.is_contiguous:
        return NotImplemented
    elements = torch.arange(torch.Size(source.shape).numel(), device=source.device)
    positions = elements.as_strided(size, stride, offset or 0)
    return gathered(builder, source, 0, (len(elements),), positions, output_of(call))
