"""Rules for the solution of linear systems with constant, factorized matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_products, stack_solves
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference
from autodiff_core._programs.rules.registry import is_live, output_of, rule, step_of
from autodiff_core._programs.stacks import Stack
from autodiff_core._tensors.triangular import TriangularSystem

_aten = torch.ops.aten


@rule(_aten.linalg_solve_triangular)
def _solve_triangular(builder: Builder, call: Call) -> Any:
    matrix, given = call.args[:2]
    left = call.kwargs.get("left", True)

    def solve(right: Tensor, matrix: Tensor) -> Tensor:
        return call.operator(matrix, right, **call.kwargs)

    if not isinstance(matrix, Reference) and stack_solves.is_single(matrix):
        single = matrix.reshape(matrix.shape[-2:])
        system = TriangularSystem(
            single if left else single.mT,
            is_lower=call.kwargs["upper"] != left,
            has_unit_diagonal=call.kwargs.get("unitriangular", False),
        )

        def solve(right: Tensor, matrix: Tensor) -> Tensor:
            return system.solve(right) if left else system.solve_rows(right)

        return _solved(builder, call, given, (matrix,), solve, left, system.inverse)

    return _solved(builder, call, given, (matrix,), solve, left)


@rule(_aten.cholesky_solve)
def _cholesky_solve(builder: Builder, call: Call) -> Any:
    given, factor, *rest = call.args

    def solve(right: Tensor, factor: Tensor) -> Tensor:
        return call.operator(right, factor, *rest, **call.kwargs)

    return _solved(builder, call, given, (factor,), solve, left=True)


@rule(_aten.linalg_lu_solve)
def _lu_solve(builder: Builder, call: Call) -> Any:
    factors, pivots, given = call.args

    def solve(right: Tensor, factors: Tensor, pivots: Tensor) -> Tensor:
        return call.operator(factors, pivots, right, **call.kwargs)

    left = call.kwargs.get("left", True)
    return _solved(builder, call, given, (factors, pivots), solve, left)


def _solved(
    builder: Builder,
    call: Call,
    given: Any,
    matrices: tuple[Any, ...],
    solve: Callable[..., Tensor],
    left: bool,
    inverse: Callable[[int], Tensor | None] = lambda count: None,
) -> Any:
    """Append the solution of systems with constant matrices; return the step's number.

    Args:
        builder: The builder.
        call: The call.
        given: The right-hand sides.
        matrices: What the matrices are factorized into.
        solve: Returns the solutions for right-hand sides and `matrices`.
        left: Whether the matrix of a system is the left factor.
        inverse: Returns the inverse of a single matrix if products with it solve the system for so
            many right-hand sides.
    """
    if any(isinstance(each, Reference) for each in matrices) or not is_live(builder, given):
        return NotImplemented
    out = output_of(call)
    columns = math.prod(out.shape[:-2]) * out.shape[-1 if left else -2]
    is_alike = given.shape == out.shape

    def apply(stack: Stack) -> Stack:
        matrix = inverse(stack.count * columns) if is_alike else None
        if matrix is None:
            return stack_solves.solved(stack, solve, matrices, out.shape, left)
        if left:
            return stack_products.times_from_left(matrix, stack, out.shape, None)
        return stack_products.times(stack, matrix.mT, out.shape)

    return builder.step("solve", step_of(builder, given), out.shape, out.dtype, apply)
