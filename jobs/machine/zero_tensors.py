"""Let forward mode multiply and add small tensors without torch's Python references."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product, zip_longest
from typing import Any

import torch
from torch import Tensor

_OPERATORS = ("add", "sub", "mul", "div")


@cache
def quicken_zero_tensors() -> torch.library.Library | None:
    """Let torch find the shapes of sums and products of zero tensors in a few microseconds.

    Forward mode gives what has no tangent a zero tensor that takes no memory. Where one meets
    another tensor, torch computes the shape of the result by its operator for tensors without
    numbers, on the device meta, which is a reference in Python: 0.25 ms a call were measured, more
    than the operation itself in many functions, and the first call loads sympy, which takes 0.3 s.
    The shape is that of broadcasting; where the order in memory is not plain, the reference is
    asked.

    Returns:
        What holds the operators; None where torch's references are not those of torch 2.11 to 2.13.
    """
    try:
        library = torch.library.Library("aten", "IMPL")
        for name, suffix, kind in product(_OPERATORS, ("", "_"), ("Tensor", "Scalar")):
            operator = getattr(getattr(torch.ops.aten, name + suffix), kind)
            reference = operator.py_kernels[torch._C.DispatchKey.Meta]
            quick = _in_place_by_shapes if suffix else _by_shapes
            library.impl(f"{name}{suffix}.{kind}", quick(reference), "Meta")
    except (AttributeError, KeyError):
        return None
    return library


def _by_shapes(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def result(first: Any, second: Any, **options: Any) -> Tensor:
        shape, tensors = _shape(first, second), _tensors(first, second)
        if shape is not None and (dtype := torch.result_type(first, second)).is_floating_point:
            if all(each.is_contiguous() for each in tensors):
                return torch.empty(shape, dtype=dtype, device="meta")
            # Without broadcasting the order in memory is that of the first operand.
            if all(each.shape == shape for each in tensors) and _has_own_order(tensors[0]):
                return torch.empty_strided(shape, tensors[0].stride(), dtype=dtype, device="meta")
        return reference(first, second, **options)

    return result


def _in_place_by_shapes(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def result(first: Tensor, second: Any, **options: Any) -> Tensor:
        is_alike = _shape(first, second) == first.shape
        dtype = first.dtype
        if is_alike and dtype.is_floating_point and torch.result_type(first, second) == dtype:
            return first
        return reference(first, second, **options)

    return result


def _shape(first: Any, second: Any) -> tuple[int, ...] | None:
    """Return the shape of the sum or product of two operands; None where more has to be asked."""
    tensors = _tensors(first, second)
    if not all(each.is_meta for each in tensors):
        return None
    if len(tensors) == 1:
        number = second if tensors[0] is first else first
        return tuple(tensors[0].shape) if isinstance(number, int | float) else None
    pairs = list(zip_longest(*(reversed(each.shape) for each in tensors), fillvalue=1))
    if not all(type(a) is type(b) is int and (a == b or 1 in (a, b)) for a, b in pairs):
        return None
    return tuple(b if a == 1 else a for a, b in reversed(pairs))


def _tensors(*operands: Any) -> list[Tensor]:
    return [each for each in operands if type(each) is Tensor]


def _has_own_order(tensor: Tensor) -> bool:
    """Return whether all dimensions count, and the elements fill their memory without overlap."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size < 2 or stride != expected:
            return False
        expected *= size
    return True
