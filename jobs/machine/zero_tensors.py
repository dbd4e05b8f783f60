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
    than the operation itself in many functions, and the first call loads sympy. For contiguous
    tensors the shape is that of broadcasting; the reference does the rest.

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
        if (shape := _shape(first, second)) is not None:
            dtype = torch.result_type(first, second)
            if dtype.is_floating_point:
                return torch.empty(shape, dtype=dtype, device="meta")
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
    tensors = [each for each in (first, second) if type(each) is Tensor]
    if not all(each.is_meta and each.is_contiguous() for each in tensors):
        return None
    if len(tensors) == 1:
        number = second if tensors[0] is first else first
        return tuple(tensors[0].shape) if isinstance(number, int | float) else None
    pairs = list(zip_longest(*(reversed(each.shape) for each in tensors), fillvalue=1))
    if not all(type(a) is type(b) is int and (a == b or 1 in (a, b)) for a, b in pairs):
        return None
    return tuple(b if a == 1 else a for a, b in reversed(pairs))
