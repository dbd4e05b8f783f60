"""Simplify linear programs: merge, join and drop steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count
from operator import is_

import torch
from torch import Tensor

from autodiff_core._programs.stack_operators import Gather, cut, gather, join_in_order, reshape
from autodiff_core._programs.stack_products import contraction
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import Step, combination, permutation
from autodiff_core._tensors.linear_combination import Coefficient, composed, numeric

_MANY_PARTS = 3
"""So many parts take less time to cut from one-hot vectors that are written out."""


def simplified(
    steps: dict[int, Step], outputs: Sequence[int | None]
) -> tuple[dict[int, Step], tuple[int | None, ...]]:
    """Return equivalent steps and outputs, without those that can be merged or dropped."""
    steps = _needed(steps, outputs)
    uses = uses_of(steps, outputs)
    merged: dict[int, Step] = {}
    same: dict[int, int] = {}
    unused = count(max(steps, default=-1) + 1)
    for number, step in steps.items():
        if not same.keys().isdisjoint(step.inputs):
            step = replace(step, inputs=tuple(same.get(index, index) for index in step.inputs))
        if step.kind == "combine":
            step = _merged(step, merged, uses)
            whole, others = _joined_parts(step, merged, uses, unused)
            if whole is not None and not others.inputs:
                step = whole
            elif whole is not None:
                joined = next(unused)
                merged[joined], uses[joined] = whole, 1
                factors = (None, *others.coefficients)
                step = combination((joined, *others.inputs), factors, step.shape, step.dtype)
        elif step.kind in ("reshape", "permute"):
            step = _merged_with_same_kind(step, merged, uses)
            step = _joined_in_order(step, merged, uses)
        elif step.kind == "sum":
            step = _contracted(step, merged, uses)
        if step.selects is not None:
            step, factor = _selected_first(step, merged, uses)
            if factor is not None:
                scaled = next(unused)
                merged[number] = step
                merged[scaled] = combination((number,), (factor,), step.shape, step.dtype)
                same[number], uses[scaled] = scaled, uses[number]
                uses[number] = 1
                continue
        if _is_sum_of_multiple(step, merged, uses):
            # Scale what there is less of: the sum.
            before = step.inputs[0]
            scaled = next(unused)
            merged[number] = replace(step, inputs=merged[before].inputs)
            factors = merged[before].coefficients
            merged[scaled] = combination((number,), factors, step.shape, step.dtype)
            same[number], uses[scaled] = scaled, uses[number]
            uses[number], uses[before] = 1, 0
            continue
        merged[number] = step
        if _is_identity(step, merged):
            source = step.inputs[0]
            same[number] = source
            uses[source] += uses[number] - 1
    outputs = tuple(None if output is None else same.get(output, output) for output in outputs)
    return _needed(merged, outputs), outputs


def _is_sum_of_multiple(step: Step, steps: dict[int, Step], uses: dict[int, int]) -> bool:
    """Return whether a step sums what is multiplied by a number and has no other use.

    In half precision a sum can overflow where that of the multiples does not.
    """
    inner = steps.get(step.inputs[0]) if step.kind == "sum" else None
    if inner is None or inner.kind != "combine" or uses[step.inputs[0]] > 1:
        return False
    if step.dtype.itemsize < 4:
        return False
    source = steps.get(inner.inputs[0])
    is_alike = source is not None and (source.shape, source.dtype) == (inner.shape, inner.dtype)
    return is_alike and len(inner.inputs) == 1 and isinstance(inner.coefficients[0], float | int)


def _contracted(step: Step, steps: dict[int, Step], uses: dict[int, int]) -> Step:
    """Sum a product of which one factor lacks a dimension as a matrix product.

    The product, with the dimensions of both, is then never written.
    """
    before = step.inputs[0]
    inner = steps.get(before)
    if inner is None or inner.kind != "combine" or len(inner.coefficients) != 1:
        return step
    factor, source = inner.coefficients[0], steps.get(inner.inputs[0])
    if not isinstance(factor, Tensor) or factor.dtype != step.dtype or source is None:
        return step
    shape = (1,) * (len(inner.shape) - len(source.shape)) + source.shape
    summed = [dim for dim in step.dims if shape[dim] > 1]
    added = [d for d, n in enumerate(inner.shape) if shape[d] < n and d not in step.dims]
    if source.dtype != step.dtype or not summed or not added or len(summed) < len(step.dims):
        return step
    kept = [dim for dim in range(len(shape)) if dim not in (*summed, *added)]
    apply = contraction(factor.expand(inner.shape), shape, kept, summed, added, step.shape)
    uses[before] -= 1
    if uses[before]:
        uses[inner.inputs[0]] += 1
    return Step("matmul", inner.inputs, step.shape, step.dtype, apply)


def _joined_parts(
    step: Step, steps: dict[int, Step], uses: Counter[int], unused: Iterator[int]
) -> tuple[Step | None, Step]:
    """Join the terms of a sum that are zero but for parts that cover a dimension without overlap.

    Terms with the same part are summed first.

    Returns:
        What joins them, None if there are none; and the sum of the other terms.
    """
    parts: dict[int, dict[tuple[int, int], list[int]]] = {}
    for index, coefficient in zip(step.inputs, step.coefficients, strict=True):
        inner = steps.get(index)
        is_part = inner is not None and inner.kind == "pad" and inner.shape == step.shape
        if is_part and inner is not None and coefficient is None and uses[index] == 1:
            dim, start, length = inner.dims
            parts.setdefault(dim, {}).setdefault((start, length), []).append(index)
    for dim, found in parts.items():
        places = sorted(found)
        own = {index for indices in found.values() for index in indices}
        ends = [start + length for start, length in places]
        covers = [start for start, _ in places] == [0, *ends[:-1]] and ends[-1] == step.shape[dim]
        is_alike = all(steps[index].dtype == step.dtype for index in own)
        if len(places) > 1 and covers and is_alike:
            sources = [_sum_of_sources(found[each], steps, uses, unused) for each in places]
            if None in sources:
                continue
            shapes = [(*step.shape[:dim], n, *step.shape[dim + 1 :]) for _, n in places]
            rest = [
                (index, coefficient)
                for index, coefficient in zip(step.inputs, step.coefficients, strict=True)
                if index not in own
            ]
            others = combination(
                [index for index, _ in rest],
                [coefficient for _, coefficient in rest],
                step.shape,
                step.dtype,
            )
            apply = partial(_joined, shapes=shapes, dim=dim)
            joined = tuple([each for each in sources if each is not None])
            return Step("join", joined, step.shape, step.dtype, apply), others
    return None, step


def _sum_of_sources(
    indices: Sequence[int], steps: dict[int, Step], uses: Counter[int], unused: Iterator[int]
) -> int | None:
    """Append the sum of what some steps pad; return its number, None if the shapes differ."""
    sources = [steps[index].inputs[0] for index in indices]
    if len(sources) == 1:
        return sources[0]
    first = steps.get(sources[0])
    if first is None or any(steps.get(each) is None for each in sources):
        return None
    if any(steps[each].shape != first.shape for each in sources):
        return None
    number = next(unused)
    steps[number] = combination(sources, [None] * len(sources), first.shape, first.dtype)
    uses[number] = 1
    return number


def _joined(
    *stacks: Stack,
    shapes: Sequence[tuple[int, ...]],
    dim: int,
    dims: tuple[int, ...] = (),
) -> Stack:
    parts = [reshape(stack, shape) for stack, shape in zip(stacks, shapes, strict=True)]
    return join_in_order(parts, dim, dims)


def _selected_first(
    step: Step, steps: dict[int, Step], uses: Counter[int]
) -> tuple[Step, Coefficient]:
    """Select elements of the factors of a product in place of those of the product.

    The product is then never written. It may have other uses if they select as little.

    Returns:
        The selection, and what it is to be multiplied by.
    """
    factor: Coefficient = None
    while step.selects is not None:
        before = step.inputs[0]
        inner = steps.get(before)
        if inner is None or inner.kind not in ("combine", "matmul") or len(inner.coefficients) != 1:
            break
        source, coefficient = inner.inputs[0], inner.coefficients[0]
        given = steps.get(source)
        sizes = [torch.Size(each.shape).numel() for each in (step, inner)]
        is_alike = given is not None and given.dtype == inner.dtype == step.dtype
        if not is_alike or given is None or uses[before] * sizes[0] >= sizes[1]:
            break
        if isinstance(coefficient, Tensor):
            coefficient = step.selects(coefficient.expand(inner.shape))
        factor = composed(1.0 if coefficient is None else coefficient, factor, step.dtype)
        step = replace(step, inputs=(source,))
        if given.shape != inner.shape:
            assert isinstance(coefficient, Tensor)  # it has the other dimensions
            step = _selection_of_the_smaller(step, given.shape, inner.shape, coefficient.device)
        uses[before] -= 1
        if uses[before]:
            uses[source] += 1
    return step, factor


def _selection_of_the_smaller(
    step: Step, shape: tuple[int, ...], broadcast: tuple[int, ...], device: torch.device
) -> Step:
    """Select from what has one shape the elements that a step selects when it is broadcast."""
    assert step.selects is not None
    size = torch.Size(shape).numel()
    numbers = torch.arange(size, device=device).reshape(shape).expand(broadcast)
    positions = step.selects(numbers).flatten()
    index = Gather(positions)
    is_range = len(positions) > 0 and bool((positions.diff() == 1).all())
    start = int(positions[0]) if is_range else 0

    def apply(stack: Stack) -> Stack:
        flat = reshape(stack, (size,))
        end = start + len(positions)
        part = cut(flat, 0, start, end) if is_range else gather(flat, 0, index)
        return reshape(part, step.shape)

    def selects(constant: Tensor) -> Tensor:
        return constant.reshape(-1)[positions].reshape(step.shape)

    return replace(step, kind="cut" if is_range else "gather", apply=apply, selects=selects)


def cut_up(steps: dict[int, Step]) -> frozenset[int]:
    """Return the results of which many parts are used, and nothing else."""
    kinds: dict[int, list[str]] = {}
    for step in steps.values():
        for index in step.inputs:
            kinds.setdefault(index, []).append(step.kind)
    return frozenset(
        index
        for index, found in kinds.items()
        if len(found) >= _MANY_PARTS and set(found) == {"cut"}
    )


def uses_of(steps: dict[int, Step], outputs: Sequence[int | None]) -> Counter[int]:
    """Return how often each result is used, including as an output."""
    taken = chain(*(step.inputs for step in steps.values()), outputs)
    return Counter(number for number in taken if number is not None)


def _merged_with_same_kind(step: Step, steps: dict[int, Step], uses: dict[int, int]) -> Step:
    """Merge a change of shape, or of the order of dimensions, with one of its kind before it."""
    before = step.inputs[0]
    inner = steps.get(before)
    if inner is None or inner.kind != step.kind:
        return step
    uses[before] -= 1
    if uses[before]:
        uses[inner.inputs[0]] += 1
    if step.kind == "reshape":
        return replace(step, inputs=inner.inputs)
    dims = tuple(inner.dims[dim] for dim in step.dims)
    return permutation(inner.inputs[0], dims, step.shape, step.dtype)


def _joined_in_order(step: Step, steps: dict[int, Step], uses: dict[int, int]) -> Step:
    """Join tensors in the order of dimensions that a following permutation produces.

    The next step, often a change of shape, then needs no copy.
    """
    inner = steps.get(step.inputs[0])
    is_for_this = inner is not None and inner.kind == "join" and uses[step.inputs[0]] == 1
    if step.kind != "permute" or not is_for_this or inner is None or inner.dims:
        return step
    uses[step.inputs[0]] = 0
    apply = partial(inner.apply, dims=step.dims)
    return replace(inner, shape=step.shape, apply=apply, dims=step.dims)


def _is_identity(step: Step, steps: dict[int, Step]) -> bool:
    """Return whether a step returns its input unchanged."""
    if step.kind == "permute":
        return step.dims == tuple(range(len(step.dims)))
    is_plain = step.kind == "reshape" or step.is_one_term_as_it_is
    inner = steps.get(step.inputs[0]) if is_plain else None
    return inner is not None and (inner.shape, inner.dtype) == (step.shape, step.dtype)


def _needed(steps: dict[int, Step], outputs: Sequence[int | None]) -> dict[int, Step]:
    """Return the steps on which the outputs depend."""
    needed = {output for output in outputs if output is not None}
    for number in reversed(steps):
        if number in needed:
            needed.update(steps[number].inputs)
    return {number: step for number, step in steps.items() if number in needed}


def _merged(step: Step, steps: dict[int, Step], uses: dict[int, int]) -> Step:
    """Merge a combination with combinations among its inputs, and collect like terms."""
    terms: dict[int, Coefficient] = {}
    for index, coefficient in zip(step.inputs, step.coefficients, strict=True):
        inner = steps.get(index)
        if inner is not None and _can_take_in(inner, index, coefficient, step, uses):
            for source, own in zip(inner.inputs, inner.coefficients, strict=True):
                _collect(terms, source, composed(own, coefficient, step.dtype), step.dtype)
        elif inner is not None and inner.kind == "expand" and isinstance(coefficient, Tensor):
            # A product broadcasts by itself: the expanded tensor need not be written.
            _collect(terms, inner.inputs[0], coefficient.expand(step.shape), step.dtype)
        else:
            _collect(terms, index, coefficient, step.dtype)
    # A sum that begins with a term without a coefficient saves one multiplication.
    order = sorted(terms, key=lambda index: terms[index] is not None)
    coefficients = [terms[index] for index in order]
    if tuple(order) == step.inputs and all(map(is_, coefficients, step.coefficients)):
        return step
    return combination(order, coefficients, step.shape, step.dtype)


def _can_take_in(
    inner: Step, index: int, coefficient: Coefficient, outer: Step, uses: dict[int, int]
) -> bool:
    if inner.kind != "combine" or inner.dtype != outer.dtype:
        return False
    if len(inner.inputs) == 1:
        return True
    # A sum that is used once, if merging it adds no multiplication.
    return uses.get(index, 0) == 1 and (coefficient is None or None not in inner.coefficients)


def _collect(
    terms: dict[int, Coefficient], source: int, coefficient: Coefficient, dtype: torch.dtype
) -> None:
    if source in terms:
        first, second = (
            1.0 if each is None else numeric(each, dtype) for each in (terms[source], coefficient)
        )
        assert first is not None
        assert second is not None
        coefficient = first + second
    terms[source] = coefficient
