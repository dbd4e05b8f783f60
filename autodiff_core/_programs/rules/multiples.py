"""Adjacent multiples of one result, joined, are one product with the joined factors.

Matrices whose elements are computed one by one, as those of rotations are, are such joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Reference
from autodiff_core._programs.steps import combination
from autodiff_core._tensors.linear_combination import Coefficient, composed, numeric

_ZERO = "zero"

Piece = tuple[tuple[int, ...], int | None]
"""The shape of a piece of a join, and its step's number; None if it is zero."""


def with_joined_multiples(
    builder: Builder, pieces: Sequence[Piece], dim: int, out: Reference
) -> list[Piece]:
    """Return the pieces of a join, with adjacent zeros, or multiples of one result, as one piece.

    Args:
        builder: The program, to which the products are appended.
        pieces: The pieces, in order.
        dim: The dimension along which they are joined.
        out: What they are joined to.
    """
    found: list[Piece] = []
    for base, group in groupby(pieces, lambda piece: _base(builder, piece, dim, out)):
        alike = list(group)
        shape = alike[0][0]
        if base is _ZERO:
            length = sum(each[dim] for each, _ in alike)
            found.append(((*shape[:dim], length, *shape[dim + 1 :]), None))
            continue
        if base is None or len(alike) == 1:
            found += alike
            continue
        factors = [_factor(builder, number, shape, out) for _, number in alike]
        reshaped = partial(stack_operators.reshape, shape=shape)
        assert isinstance(base, int)
        source = builder.step("reshape", base, shape, out.dtype, reshaped)
        whole = (*shape[:dim], len(alike), *shape[dim + 1 :])
        product = combination((source,), (torch.cat(factors, dim),), whole, out.dtype)
        found.append((whole, builder.add(product)))
    return found


def _base(builder: Builder, piece: Piece, dim: int, out: Reference) -> int | str | None:
    """Return the step of which a piece of length one is a multiple.

    Returns:
        The step's number, `_ZERO` for a piece of zeros of any length, None for another piece.
    """
    shape, number = piece
    if number is None:
        return _ZERO
    step = builder.program.steps.get(number)
    if step is None or shape[dim] != 1 or step.dtype != out.dtype:
        return None
    base, factor = _multiple(builder, number)
    is_known = not isinstance(factor, Tensor) or factor.dtype in (torch.bool, out.dtype)
    return base if is_known else None


def _factor(builder: Builder, number: int | None, shape: tuple[int, ...], out: Reference) -> Tensor:
    assert number is not None
    factor = numeric(_multiple(builder, number)[1], out.dtype)
    if isinstance(factor, Tensor):
        return factor.expand(builder.program.steps[number].shape).reshape(shape)
    value = 1.0 if factor is None else factor
    return torch.full(shape, value, dtype=out.dtype, device=out.device)


def _multiple(builder: Builder, number: int) -> tuple[int, Coefficient]:
    """Return the step of which another one is a multiple in some shape, and the factor."""
    steps, notes = builder.program.steps, builder.notes
    path: list[int] = []
    while ("multiple", number) not in notes:
        step = steps[number]
        inner = steps.get(step.inputs[0]) if len(step.inputs) == 1 else None
        is_alike = inner is not None and inner.dtype == step.dtype
        is_product = step.kind == "combine" and inner is not None and inner.shape == step.shape
        if not (is_alike and (is_product or step.kind == "reshape")):
            notes["multiple", number] = number, None
            break
        path.append(number)
        number = step.inputs[0]
    base, factor = notes["multiple", number]
    for number in reversed(path):
        step = steps[number]
        if step.kind == "combine":
            factor = composed(factor, step.coefficients[0], step.dtype)
        elif isinstance(factor, Tensor):
            factor = factor.expand(steps[step.inputs[0]].shape).reshape(step.shape)
        notes["multiple", number] = base, factor
    return base, factor
