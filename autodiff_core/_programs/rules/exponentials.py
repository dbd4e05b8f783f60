"""The rule for the derivative of the exponential of a matrix.

torch computes it as a block of the exponential of a matrix of twice the size, [[A, E], [0, A]],
which is linear in E though the exponential is not. Its steps are followed by notes. Until the block
is cut out, they are steps that cannot be computed; a program that needs one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.registry import is_live, output_of, rule, step_of
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import NOT_LINEAR, Step
from autodiff_core._tensors.exponential import DerivativeOfExponential

_aten = torch.ops.aten


@dataclass(frozen=True)
class _Stage:
    """A note of how far a step has come on the way to the derivative.

    Attributes:
        name: ``rows``: [A, E]; ``matrix``: [[A, E], [0, A]]; ``exponential``: that of it;
            ``upper``: the upper half of this.
        matrix: A.
        direction: The number of the step that gives E.
    """

    name: str
    matrix: Tensor
    direction: int


def joined_with_matrix(builder: Builder, call: Call, dim: int) -> int | None:
    """Append what joins a direction with constants, if it may be on the way to a derivative.

    Args:
        builder: The program.
        call: The call of ``cat``.
        dim: The dimension along which it joins.
    """
    out = output_of(call)
    if len(call.args[0]) != 2 or dim < len(out.shape) - 2:
        return None
    first, second = call.args[0]
    if dim == len(out.shape) - 1 and isinstance(first, Tensor) and is_live(builder, second):
        is_square = first.dim() >= 2 and first.shape[-2] == first.shape[-1]
        if is_square and first.shape == second.shape and bool((first != 0).any()):
            return _not_yet(builder, _Stage("rows", first, step_of(builder, second)), out)
    if dim == len(out.shape) - 2 and isinstance(second, Tensor):
        stage = _stage(builder, first, "rows")
        if stage is not None:
            matrix = stage.matrix
            lower = torch.cat([torch.zeros_like(matrix), matrix], -1)
            if torch.equal(lower, second):
                return _not_yet(builder, replace(stage, name="matrix"), out)
    return None


@rule(_aten.linalg_matrix_exp)
def _exponential(builder: Builder, call: Call) -> Any:
    stage = _stage(builder, call.args[0], "matrix")
    if stage is None or not bool(torch.isfinite(stage.matrix).all()):
        return NotImplemented
    return _not_yet(builder, replace(stage, name="exponential"), output_of(call))


def cut_of_exponential(builder: Builder, call: Call, dim: int, taken: range) -> int | None:
    """Append what cuts a half of an exponential, or the derivative that the cut gives."""
    out, rank = output_of(call), len(output_of(call).shape)
    size = call.args[0].shape[-1] // 2
    stage = _stage(builder, call.args[0], "exponential")
    if stage is not None and (dim, taken) == (rank - 2, range(size)):
        return _not_yet(builder, replace(stage, name="upper"), out)
    stage = _stage(builder, call.args[0], "upper")
    if stage is None or (dim, taken) != (rank - 1, range(size, 2 * size)):
        return None
    derivative = DerivativeOfExponential(stage.matrix)

    def apply(stack: Stack) -> Stack:
        return Stack(derivative(stack.dense()), out.shape)

    return builder.step("solve", stage.direction, out.shape, out.dtype, apply)


def _stage(builder: Builder, value: Any, name: str) -> _Stage | None:
    note = builder.notes.get(step_of(builder, value)) if is_live(builder, value) else None
    return note if isinstance(note, _Stage) and note.name == name else None


def _not_yet(builder: Builder, stage: _Stage, out: Reference) -> int:
    def apply(stack: Stack) -> Stack:
        raise AssertionError("a program that needs this step is refused")

    step = Step(NOT_LINEAR, (stage.direction,), tuple(out.shape), out.dtype, apply)
    number = builder.add(step)
    builder.notes[number] = stage
    return number
