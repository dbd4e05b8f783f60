"""Let torch find shapes on the device meta without its references in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product, zip_longest
from typing import Any

import torch
from torch import Tensor

_BINARY = ("add", "sub", "mul", "div")
# Pointwise operators of integers, whose references refuse other numbers.
_OF_INTEGERS = ("bitwise", "__")


@cache
def quicken_meta_operators() -> torch.library.Library | None:
    """Let torch find the shapes of pointwise operators without numbers in a few microseconds.

    Forward mode gives what has no tangent a zero tensor that takes no memory. Where one meets
    another tensor, torch computes the shape of the result by its operator for tensors without
    numbers, on the device meta; and so does functionalization for each operator that works in
    place. That operator is a reference in Python: 0.25 ms a call were measured, more than the
    operation itself in many functions, and the first call loads sympy, which takes 0.3 s, or
    torch's compiler, which takes a second. The shape is that of broadcasting; where dtypes or the
    order in memory are not plain, the reference is asked.

    Returns:
        What holds the operators; None where torch's references are not those of torch 2.11 to 2.13.
    """
    try:
        library = torch.library.Library("aten", "IMPL")
        for name, kind in product(_BINARY, ("Tensor", "Scalar")):
            reference = _reference(getattr(getattr(torch.ops.aten, name), kind))
            library.impl(f"{name}.{kind}", _by_shapes(reference), "Meta")
        for name, reference in _in_place_references():
            library.impl(name, _in_place(reference), "Meta")
    except (AttributeError, KeyError):
        return None
    return library


def _reference(operator: Any) -> Callable[..., Tensor]:
    return operator.py_kernels[torch._C.DispatchKey.Meta]


def _in_place_references() -> Iterator[tuple[str, Callable[..., Tensor]]]:
    """Yield the names and references of the pointwise operators that work in place."""
    for each in torch._C._dispatch_get_registrations_for_dispatch_key("Meta"):
        namespace, _, full = each.partition("::")
        name, _, overload = full.partition(".")
        if namespace != "aten" or not name.endswith("_") or name.startswith(_OF_INTEGERS):
            continue
        operator = getattr(getattr(torch.ops.aten, name), overload or "default")
        is_python = torch._C.DispatchKey.Meta in operator.py_kernels
        if is_python and torch.Tag.pointwise in operator.tags:
            yield full, _reference(operator)


def _by_shapes(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def result(first: Any, second: Any, **options: Any) -> Tensor:
        shape, tensors = _shape((first, second)), _tensors((first, second))
        if shape is not None and _is_inexact(dtype := torch.result_type(first, second)):
            if all(each.is_contiguous() for each in tensors):
                return torch.empty(shape, dtype=dtype, device="meta")
            # Where a length is 1, its place in memory is a matter of convention.
            if 1 not in shape and 0 not in shape:
                strides = _strides(shape, tensors)
                return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
        return reference(first, second, **options)

    return result


def _in_place(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def result(first: Tensor, *others: Any, **options: Any) -> Tensor:
        operands = (first, *others)
        is_plain = _is_inexact(first.dtype) and _shape(operands) == first.shape
        # Real numbers do not make floating-point numbers wider.
        is_plain &= not any(isinstance(each, complex) for each in others)
        if is_plain and all(each.dtype == first.dtype for each in _tensors(operands)):
            return first
        return reference(first, *others, **options)

    return result


def _shape(operands: tuple[Any, ...]) -> tuple[int, ...] | None:
    """Return the shape of tensors and numbers together; None where more has to be asked."""
    tensors = _tensors(operands)
    if not all(isinstance(each, Tensor | int | float | complex | None) for each in operands):
        return None
    if not all(each.is_meta and type(each) is Tensor for each in tensors):
        return None
    shape: list[int] = []
    for sizes in zip_longest(*(reversed(each.shape) for each in tensors), fillvalue=1):
        if not all(type(size) is int for size in sizes):
            return None
        longer = {size for size in sizes if size != 1}
        if len(longer) > 1:
            return None
        shape.insert(0, longer.pop() if longer else 1)
    return tuple(shape)


def _tensors(operands: tuple[Any, ...]) -> list[Tensor]:
    return [each for each in operands if isinstance(each, Tensor)]


def _strides(shape: tuple[int, ...], tensors: list[Tensor]) -> list[int]:
    """Return the strides that torch gives the result of an operator, element by element.

    The dimensions are sorted by the strides of the operands, of which the first that differ decide;
    those along which an operand is expanded say nothing (`TensorIterator::reorder_dimensions`).
    """
    given = [each.expand(shape).stride() for each in tensors]
    order = list(reversed(range(len(shape))))
    for last in range(1, len(order)):
        place = last
        for before in reversed(range(last)):
            difference = _difference(given, order[before], order[place])
            if difference > 0:
                # Those in between, of which nothing is known, stay: it is no insertion.
                order[before], order[place] = order[place], order[before]
                place = before
            elif difference < 0:
                break
    strides, length = [0] * len(shape), 1
    for dim in order:
        strides[dim] = length
        length *= shape[dim]
    return strides


def _difference(given: list[tuple[int, ...]], one: int, other: int) -> int:
    for strides in given:
        if strides[one] and strides[other] and strides[one] != strides[other]:
            return strides[one] - strides[other]
    return 0


def _is_inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex
