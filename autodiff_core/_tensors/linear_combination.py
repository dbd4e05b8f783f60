"""Sums of tensors times constants, in new memory or in that of terms no longer used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor

Coefficient = Tensor | float | None
"""The factor of a tensor, element by element; None stands for one.

A boolean tensor selects: where it is false the product is zero, even that with ∞ or NaN.
"""


def numeric(coefficient: Coefficient, dtype: torch.dtype) -> Coefficient:
    """Return a coefficient as a factor, a selection as ones and zeros of a dtype."""
    return coefficient.to(dtype) if is_selection(coefficient) else coefficient


def is_selection(coefficient: Coefficient) -> TypeGuard[Tensor]:
    """Return whether a coefficient selects elements."""
    return isinstance(coefficient, Tensor) and coefficient.dtype == torch.bool


def composed(first: Coefficient, second: Coefficient, dtype: torch.dtype) -> Coefficient:
    """Return the coefficient that has the effect of one after the other.

    Args:
        first: The one that is applied first.
        second: The one that is applied to the result.
        dtype: The dtype of what they are applied to.
    """
    if first is None:
        return second
    if second is None:
        return first
    if is_selection(second):
        chosen = first if isinstance(first, Tensor) else second.new_tensor(first, dtype=dtype)
        return torch.where(second, chosen, chosen.new_zeros(()))
    factor = numeric(first, dtype)
    assert factor is not None
    return factor * second


def linear_combination(
    tensors: Sequence[Tensor], coefficients: Sequence[Coefficient], spare: Sequence[bool] = ()
) -> Tensor:
    """Return the sum of tensors, each multiplied elementwise by a constant, with broadcasting.

    Args:
        tensors: The tensors; a single one without a coefficient is returned unchanged.
        coefficients: The factor of each tensor.
        spare: Which tensors are not used again, so that the sum may overwrite them.
    """
    if not spare:
        total = _multiple(tensors[0], coefficients[0], may_overwrite=False)
        for tensor, coefficient in zip(tensors[1:], coefficients[1:], strict=True):
            total = _added(total, tensor, coefficient, None)
        return total
    is_free = _is_free(tensors[0], spare[0])
    total = _multiple(tensors[0], coefficients[0], may_overwrite=is_free)
    is_own = is_free or coefficients[0] is not None
    for place in range(1, len(tensors)):
        tensor, memory = tensors[place], None
        if is_own and _fits_within(tensor.shape, total.shape):
            memory = total
        elif _is_free(tensor, spare[place]) and _fits_within(total.shape, tensor.shape):
            memory = tensor
        total = _added(total, tensor, coefficients[place], memory)
        is_own = True
    return total


def is_without_overlap(tensor: Tensor) -> bool:
    """Return whether each element has its own place in memory."""
    return tensor.is_contiguous() or all(
        stride or size <= 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )


def _is_free(tensor: Tensor, is_spare: bool) -> bool:
    return is_spare and is_without_overlap(tensor)


def _multiple(tensor: Tensor, coefficient: Coefficient, *, may_overwrite: bool) -> Tensor:
    if coefficient is None:
        return tensor
    if not isinstance(coefficient, Tensor):
        if coefficient == -1:
            return tensor.neg_() if may_overwrite else -tensor
        if may_overwrite and not _makes_complex(tensor, coefficient):
            return tensor.mul_(coefficient)
        return tensor * coefficient
    is_alike = coefficient.dtype == tensor.dtype
    if may_overwrite and is_alike and _fits_within(coefficient.shape, tensor.shape):
        return tensor.mul_(coefficient)
    return tensor * coefficient


def _added(
    total: Tensor, tensor: Tensor, coefficient: Coefficient, memory: Tensor | None
) -> Tensor:
    """Return the total plus a multiple of a tensor, in one pass if torch has an operator for it.

    Args:
        total: The total.
        tensor: The tensor to add.
        coefficient: The factor of `tensor`.
        memory: One of the two, if the sum may overwrite it and the other broadcasts to it.
    """
    is_alike = tensor.dtype == total.dtype
    out = memory if is_alike else None
    if isinstance(coefficient, Tensor):
        if not is_alike or coefficient.dtype != tensor.dtype:
            return total + tensor * coefficient
        if out is not None and not _fits_within(coefficient.shape, out.shape):
            out = None
        return torch.addcmul(total, tensor, coefficient, out=out)
    if coefficient is not None and _makes_complex(tensor, coefficient):
        return total + tensor * coefficient
    return torch.add(total, tensor, alpha=1 if coefficient is None else coefficient, out=out)


def _makes_complex(tensor: Tensor, coefficient: complex) -> bool:
    return isinstance(coefficient, complex) and not tensor.is_complex()


def _fits_within(part: Sequence[int], whole: Sequence[int]) -> bool:
    """Return whether a shape broadcasts to another one."""
    missing = len(whole) - len(part)
    return part == whole or (
        missing >= 0
        and all(size in (1, length) for size, length in zip(part, whole[missing:], strict=True))
    )
