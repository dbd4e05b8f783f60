"""Rules for matrix products and normalizations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators, stack_products
from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference, UncapturableError
from autodiff_core._programs.rules.registry import (
    check_zero,
    is_live,
    only_first,
    output_of,
    rule,
    step_of,
)
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import Step, combination

_aten = torch.ops.aten


@rule(_aten.mm, _aten.bmm, _aten.mv, _aten.dot)
def _matmul(builder: Builder, call: Call) -> Any:
    first, second = call.args[:2]
    return _product(builder, first, second, output_of(call))


@rule(_aten.addmm, _aten.addmv, _aten.baddbmm)
def _addmm(builder: Builder, call: Call) -> Any:
    added, first, second = call.args[:3]
    alpha, beta = call.kwargs.get("alpha", 1), call.kwargs.get("beta", 1)
    out = output_of(call)
    sources, factors = [], []
    if is_live(builder, first) or is_live(builder, second):
        sources.append(_product(builder, first, second, out))
        factors.append(None if alpha == 1 else alpha)
    if is_live(builder, added):
        sources.append(step_of(builder, added))
        factors.append(None if beta == 1 else beta)
    elif not isinstance(added, Reference) and beta != 0:
        check_zero(added)
    return builder.add(combination(sources, factors, out.shape, out.dtype))


def _product(builder: Builder, first: Any, second: Any, out: Reference) -> int:
    """Append a matrix product with one constant factor; return the step's number."""
    if isinstance(first, Reference) and isinstance(second, Reference):
        raise UncapturableError("the map is not linear: two values of it are multiplied")
    if isinstance(first, Reference):
        return live_times(builder, step_of(builder, first), first.shape, second, out)
    # W x = (xᵀ Wᵀ)ᵀ
    if len(second.shape) == 1:
        matrix = first.mT if first.dim() == 2 else first
        return live_times(builder, step_of(builder, second), second.shape, matrix, out)
    return times_live(builder, first, step_of(builder, second), out)


def times_live(builder: Builder, matrix: Tensor, source: int, out: Reference) -> int:
    """Append the product of a constant and a value; return the step's number."""
    shape = out.shape

    def apply(stack: Stack, out: Tensor | None = None) -> Stack:
        return stack_products.times_from_left(matrix, stack, shape, out)

    return _matmul_step(builder, source, matrix, shape, out.dtype, apply)


def live_times(
    builder: Builder, source: int, shape: tuple[int, ...], matrix: Tensor, out: Reference
) -> int:
    """Append the product of a value of a given shape and a constant; return the step's number."""
    columns = matrix if matrix.dim() > 1 else matrix[:, None]
    as_matrix = shape if len(shape) > 1 else (1, *shape)
    product = (*as_matrix[:-1], columns.shape[-1])
    result = out.shape

    def apply(stack: Stack, out: Tensor | None = None) -> Stack:
        if stack.dim is None and columns.dim() == 2:
            return stack_products.times(stack, columns, result, out)
        out = None if out is None else out.view(stack.count, *product)
        lines = stack_products.times(
            stack_operators.reshape(stack, as_matrix), columns, product, out
        )
        return stack_operators.reshape(lines, result)

    return _matmul_step(builder, source, columns, result, out.dtype, apply)


def _matmul_step(
    builder: Builder,
    source: int,
    matrix: Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    apply: Callable[..., Stack],
) -> int:
    step = Step("matmul", (source,), tuple(shape), dtype, apply, takes_memory=True)
    given = builder.program.steps.get(source)
    # A matrix of one column times one of one row: a product element by element.
    if given is not None and is_outer_product(given.shape, matrix, step.shape):
        step = replace(step, coefficients=(matrix,))
    return builder.add(step)


def is_outer_product(given: tuple[int, ...], matrix: Tensor, shape: tuple[int, ...]) -> bool:
    """Return whether the product of a value and a matrix has one term for each element.

    Args:
        given: The shape of the value.
        matrix: The matrix, the left or the right factor.
        shape: The shape of the product.
    """
    if not len(given) == matrix.dim() == len(shape) >= 2:
        return False
    sides = given[-2:], tuple(matrix.shape[-2:])
    return sides in (((shape[-2], 1), (1, shape[-1])), ((1, shape[-1]), (shape[-2], 1)))


@rule(_aten._softmax_backward_data)
def _softmax_backward(builder: Builder, call: Call) -> Any:
    """Compute y * (g - sum(g * y)) for the softmax y."""
    gradient, softmax, dim, dtype = call.args
    out = output_of(call)
    if not only_first(builder, call) or dtype != out.dtype or not out.shape:
        return NotImplemented
    return softmax_pullback(builder, step_of(builder, gradient), softmax, dim, out)


def softmax_pullback(
    builder: Builder, number: int, softmax: Tensor, dim: int, out: Reference
) -> int:
    """Append the pullback of a softmax along a dimension; return the step's number."""
    shape = out.shape
    weighted = builder.add(combination((number,), (softmax,), shape, out.dtype))
    mean = _sum_keeping(builder, weighted, shape, dim % len(shape), out.dtype)
    return builder.add(combination((weighted, mean), (None, -softmax), shape, out.dtype))


@rule(_aten._log_softmax_backward_data)
def _log_softmax_backward(builder: Builder, call: Call) -> Any:
    """Compute g - y * sum(g) for the softmax y."""
    gradient, log_softmax, dim, dtype = call.args
    out = output_of(call)
    if not only_first(builder, call) or dtype != out.dtype or not out.shape:
        return NotImplemented
    number, shape = step_of(builder, gradient), out.shape
    mean = _sum_keeping(builder, number, shape, dim % len(shape), out.dtype)
    factors = (None, -log_softmax.exp())
    return builder.add(combination((number, mean), factors, shape, out.dtype))


def _sum_keeping(
    builder: Builder, number: int, shape: tuple[int, ...], dim: int, dtype: torch.dtype
) -> int:
    kept = (*shape[:dim], 1, *shape[dim + 1 :])
    apply = partial(stack_operators.total, dims=(dim,), keepdim=True)
    return builder.step("sum", number, kept, dtype, apply)


@rule(_aten.native_layer_norm_backward)
def _layer_norm_backward(builder: Builder, call: Call) -> Any:
    """Compute (w g - mean(w g) - n mean(w g n)) / s.

    Here n is the normalized input and s the standard deviation.

    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization" (2016).
    """
    gradient, given, normalized, mean, rstd, weight, _, wanted = call.args
    out = output_of(call)
    if not only_first(builder, call) or any(wanted[1:]) or out.dtype != mean.dtype:
        return NotImplemented
    number, shape = step_of(builder, gradient), out.shape
    dims = tuple(range(len(shape) - len(normalized), len(shape)))
    count = torch.Size(normalized).numel()
    weight = given.new_ones(normalized) if weight is None else weight
    unit = (given - mean) * rstd
    means = []
    for factor in (weight, weight * unit):
        scaled = builder.add(combination((number,), (factor / count,), shape, out.dtype))
        kept = tuple(1 if dim in dims else size for dim, size in enumerate(shape))
        apply = partial(stack_operators.total, dims=dims, keepdim=True)
        means.append(builder.step("sum", scaled, kept, out.dtype, apply))
    factors = (weight * rstd, -rstd, -unit * rstd)
    return builder.add(combination((number, *means), factors, shape, out.dtype))
