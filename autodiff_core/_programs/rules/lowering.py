"""Lower recorded operators to linear programs.

An operator that has no rule is applied under `torch.func.vmap`.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators
from autodiff_core._programs.program import Builder, Program
from autodiff_core._programs.recording import Call, Recording, Reference, UncapturableError

# Each file registers its rules when it is imported.
from autodiff_core._programs.rules import (
    attention,  # noqa: F401
    elementwise,  # noqa: F401
    indexing,  # noqa: F401
    layout,  # noqa: F401
    overwriting,  # noqa: F401
    products,  # noqa: F401
    resampling,  # noqa: F401
    scattering,  # noqa: F401
    solves,  # noqa: F401
    transforms,  # noqa: F401
    windows,  # noqa: F401
)
from autodiff_core._programs.rules.registry import (
    RULES,
    SEVERAL,
    check_zero,
    is_live,
    step_of,
)
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import Step
from autodiff_core._tensors.tree import flatten, rebuild


def lower(recording: Recording) -> Program:
    """Return the program that applies a recorded linear map to stacks of vectors.

    Args:
        recording: The recorded map.

    Raises:
        UncapturableError: The map is not linear in its argument, or leaves its device.
    """
    calls = _used(recording)
    _refuse_several_devices(recording, calls)
    builder = Builder(Program(len(recording.inputs)))
    for index, reference in enumerate(recording.inputs):
        builder.numbers[reference.value] = -1 - index
    done: dict[Any, Call] = {}
    for call in calls:
        key = _identity(builder, call)
        same = None if key is None else done.setdefault(key, call)
        if same is None or same is call:
            _lower_call(builder, call)
        else:
            for output, known in zip(call.outputs, same.outputs, strict=True):
                if output is not None and known is not None:
                    builder.numbers[output.value] = builder.numbers[known.value]
    program = builder.program
    program.outputs = tuple(
        builder.numbers[output.value] if isinstance(output, Reference) else check_zero(output)
        for output in recording.outputs
    )
    program.shapes = tuple(tuple(output.shape) for output in recording.outputs)
    program.dtypes = tuple(output.dtype for output in recording.outputs)
    program.devices = tuple(output.device for output in recording.outputs)
    program.finish()
    return program


def _refuse_several_devices(recording: Recording, calls: list[Call]) -> None:
    """Leave maps that move tensors to the plain engine: steps are joined as if on one device."""
    devices = {reference.device for reference in recording.inputs}
    for call in calls:
        devices.update([output.device for output in call.outputs if output is not None])
    places = sorted(map(str, devices))
    if len(places) > 1:
        raise UncapturableError(f"the function computes on several devices ({', '.join(places)})")


def _used(recording: Recording) -> list[Call]:
    """Return the calls on which the outputs depend."""
    needed = {o.value for o in recording.outputs if isinstance(o, Reference)}
    kept = []
    for call in reversed(recording.calls):
        if any(output is not None and output.value in needed for output in call.outputs):
            needed.update([reference.value for reference in call.references])
            kept.append(call)
    return kept[::-1]


def _identity(builder: Builder, call: Call) -> Any:
    """Return what a call with the same results has in common; None if it draws random numbers.

    Derivatives of derivatives compute many intermediate results several times.
    """
    if _draws_numbers(call.operator):
        return None
    given = tuple([_known(builder, each) for each in call.args])
    named = _known(builder, tuple(call.kwargs.items())) if call.kwargs else ()
    return call.operator, given, named


@cache
def _draws_numbers(operator: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in operator.tags


def _known(builder: Builder, part: Any) -> Any:
    """Return what two arguments of operators have in common when they are the same."""
    if type(part) is Reference:
        return builder.numbers[part.value], part.shape, part.dtype, part.is_contiguous
    if isinstance(part, tuple | list):
        return tuple([_known(builder, each) for each in part])
    if not isinstance(part, Tensor):
        return type(part), part if isinstance(part, Hashable) else id(part)
    if part.layout != torch.strided or not part.data_ptr():
        return id(part)
    place = part.data_ptr(), part.device, part.dtype, part.is_conj(), part.is_neg()
    return *place, part.shape, part.stride()


def _lower_call(builder: Builder, call: Call) -> None:
    if all(builder.numbers[reference.value] is None for reference in call.references):
        for output in call.outputs:
            if output is not None:
                builder.numbers[output.value] = None
        return
    packet = call.operator.overloadpacket
    if packet in SEVERAL and SEVERAL[packet](builder, call) is not NotImplemented:
        return
    rule = RULES.get(packet)
    output = call.outputs[0]
    is_single = output is not None and not any(call.outputs[1:])
    if rule is not None and is_single and output is not None:
        number = rule(builder, call)
        if number is not NotImplemented:
            builder.numbers[output.value] = number
            return
    _general(builder, call)


def _general(builder: Builder, call: Call) -> None:
    """Append the operator under vmap, and a step for each of its outputs."""
    leaves, structure = flatten((call.args, call.kwargs))
    places = [index for index, leaf in enumerate(leaves) if is_live(builder, leaf)]
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Reference) and index not in places:
            leaves[index] = torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device)
    outputs = {index: output for index, output in enumerate(call.outputs) if output is not None}

    def operator(*parts: Tensor) -> tuple[Tensor, ...]:
        filled = list(leaves)
        for place, part in zip(places, parts, strict=True):
            filled[place] = part
        args, kwargs = rebuild(filled, structure)
        results = call.operator(*args, **kwargs)
        results = results if isinstance(results, tuple | list) else (results,)
        return tuple(results[index] for index in outputs)

    def apply(*stacks: Stack) -> tuple[Tensor, ...]:
        return stack_operators.general(operator, stacks)

    sources = tuple(step_of(builder, leaves[place]) for place in places)
    first = next(iter(outputs.values()))
    whole = builder.add(Step("general", sources, first.shape, first.dtype, apply))
    for place, output in enumerate(outputs.values()):
        pick = partial(_picked, place, output.shape)
        builder.numbers[output.value] = builder.add(
            Step("pick", (whole,), output.shape, output.dtype, pick)
        )


def _picked(index: int, shape: tuple[int, ...], results: tuple[Tensor, ...]) -> Stack:
    return Stack(results[index], shape)
