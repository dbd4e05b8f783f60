"""Linear programs: a recorded linear map, rewritten for stacks of vectors and simplified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators as _support
from autodiff_core._programs.stack_operators import Stack
from autodiff_core._tensors.linear_combination import Coefficient

Memory = Callable[[], Sequence[Tensor]]
"""Gives what the images of a program are put into; asked when the first of them is computed."""

# Their results stand in memory of their own.
_MAKES_NEW = ("matmul", "solve", "combine")


@dataclass(frozen=True)
class Step:
    """One step of a linear program.

    Attributes:
        kind: What is done, for reading and rewriting.
        inputs: The numbers of the steps whose results are taken.
        shape: The shape of one vector of the result.
        dtype: The dtype of the result.
        apply: Makes the result from those of `inputs`.
        coefficients: For a ``combine``: what each input is multiplied by.
        dims: For a ``permute``: which dimension of its input each dimension is; for a ``join`` the
            same, of what is joined.
        takes_memory: Whether `apply` has an argument ``out``: memory of shape (count, *shape) that
            the result may be put into.
    """

    kind: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    apply: Callable[..., Stack | tuple[Tensor, ...]]
    coefficients: tuple[Coefficient, ...] = ()
    dims: tuple[int, ...] = ()
    takes_memory: bool = False


@dataclass
class Program:
    """A linear map from tensors to tensors, to be applied to stacks of vectors.

    Attributes:
        sources: How many tensors the argument has; they are the first steps' inputs, numbered
            -1, -2, ...
        steps: The steps, by number.
        outputs: For each tensor of the image the number of its step, or None where it is zero.
        shapes: The shape of each tensor of the image.
        dtypes: Its dtype.
        devices: Its device.
    """

    sources: int
    steps: dict[int, Step] = field(default_factory=dict)
    outputs: tuple[int | None, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[torch.dtype, ...] = ()
    devices: tuple[torch.device, ...] = ()
    _finished: dict[int, list[int]] = field(default_factory=dict)
    _placed: dict[int, int] = field(default_factory=dict)
    _spare: dict[int, tuple[bool, ...]] = field(default_factory=dict)

    @torch.no_grad()
    def apply(
        self,
        stacks: Sequence[Stack],
        count: int,
        memory: Memory | None = None,
        *,
        reuses_memory: bool = True,
    ) -> tuple[Tensor, ...]:
        """The images of stacked vectors, without history.

        A result is dropped after its last use.

        Args:
            stacks: The vectors, a stack for each source.
            count: How many there are.
            memory: Gives what the images are put into, of their shapes; None takes new memory.
            reuses_memory: Whether a sum may take the memory of terms that nobody else uses.

        Returns:
            For each tensor of the image one of shape (count, *shape).
        """
        results: dict[int, Any] = {-1 - index: stack for index, stack in enumerate(stacks)}
        images: Sequence[Tensor] | None = None
        for number, step in self.steps.items():
            given = [results[index] for index in step.inputs]
            if memory is not None and number in self._placed:
                images = memory() if images is None else images
                out = images[self._placed[number]].view(count, *step.shape)
                results[number] = step.apply(*given, out=out)
            elif reuses_memory and number in self._spare:
                results[number] = step.apply(*given, spare=self._spare[number])
            else:
                results[number] = step.apply(*given)
            for index in self._finished[number]:
                del results[index]
        if memory is not None:
            images = memory() if images is None else images
            for output, out in zip(self.outputs, images, strict=True):
                if output is None:
                    out.zero_()
                else:
                    results[output].put(out)
            return tuple(images)
        return tuple(
            torch.zeros(1, dtype=dtype, device=device).expand(count, *shape)
            if output is None
            else results[output].dense()
            for output, shape, dtype, device in zip(
                self.outputs, self.shapes, self.dtypes, self.devices, strict=True
            )
        )

    def finish(self) -> None:
        """Simplify, and find out when each result is used last and which can be put in place."""
        self.steps, self.outputs = _simplified(self.steps, self.outputs)
        for place, output in enumerate(self.outputs):
            number = output
            while number in self.steps and self.steps[number].kind == "reshape":
                number = self.steps[number].inputs[0]
            if number in self.steps and self.steps[number].takes_memory:
                self._placed[number] = place
        last: dict[int, int] = {}
        for number, step in self.steps.items():
            for index in (*step.inputs, number):
                last[index] = number
        for output in self.outputs:
            if output is not None:
                last.pop(output, None)
        self._finished = {number: [] for number in self.steps}
        for index, number in last.items():
            self._finished[number].append(index)
        uses = _uses(self.steps, self.outputs)
        # The memory of a result is free for the only step that takes it.
        for number, step in self.steps.items():
            spare = tuple(uses[index] == 1 and self._makes_new(index) for index in step.inputs)
            if step.kind == "combine" and any(spare):
                self._spare[number] = spare

    def _makes_new(self, number: int) -> bool:
        """Whether a result stands in memory of its own, and is no view of another one."""
        step = self.steps.get(number)
        is_the_same = step is not None and step.coefficients == (None,)
        return step is not None and step.kind in _MAKES_NEW and not is_the_same


def combination(
    inputs: Sequence[int],
    coefficients: Sequence[Coefficient],
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Step:
    """The sum of results, each multiplied by a constant."""
    fixed = tuple(coefficients)

    def apply(*stacks: Stack, spare: Sequence[bool] = ()) -> Stack:
        return _support.combine(stacks, fixed, shape, dtype, spare)

    return Step("combine", tuple(inputs), shape, dtype, apply, fixed)


def permutation(
    source: int, dims: tuple[int, ...], shape: Sequence[int], dtype: torch.dtype
) -> Step:
    """A result with its dimensions in another order."""
    apply = partial(_support.permute, dims=dims)
    return Step("permute", (source,), tuple(shape), dtype, apply, dims=dims)


def _simplified(
    steps: dict[int, Step], outputs: Sequence[int | None]
) -> tuple[dict[int, Step], tuple[int | None, ...]]:
    steps = _needed(steps, outputs)
    uses = _uses(steps, outputs)
    merged: dict[int, Step] = {}
    same: dict[int, int] = {}
    for number, step in steps.items():
        step = replace(step, inputs=tuple(same.get(index, index) for index in step.inputs))
        if step.kind == "combine":
            step = _merged(step, merged, uses)
        elif step.kind in ("reshape", "permute"):
            step = _past_the_same(step, merged, uses)
            step = _joined_in_order(step, merged, uses)
        merged[number] = step
        if _is_identity(step, merged):
            source = step.inputs[0]
            same[number] = source
            uses[source] += uses[number] - 1
    outputs = tuple(None if output is None else same.get(output, output) for output in outputs)
    return _needed(merged, outputs), outputs


def _uses(steps: dict[int, Step], outputs: Sequence[int | None]) -> Counter[int]:
    """How often each result is taken, as an output as well."""
    taken = chain(*(step.inputs for step in steps.values()), outputs)
    return Counter(number for number in taken if number is not None)


def _past_the_same(step: Step, steps: dict[int, Step], uses: dict[int, int]) -> Step:
    """One change of shape, or of the order of dimensions, instead of two that follow each other."""
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
    """A result that is joined in the order of dimensions in which it is wanted.

    What follows, often a change of shape, then needs no copy.
    """
    inner = steps.get(step.inputs[0])
    is_for_this = inner is not None and inner.kind == "join" and uses[step.inputs[0]] == 1
    if step.kind != "permute" or not is_for_this or inner is None or inner.dims:
        return step
    uses[step.inputs[0]] = 0
    apply = partial(inner.apply, dims=step.dims)
    return replace(inner, shape=step.shape, apply=apply, dims=step.dims)


def _is_identity(step: Step, steps: dict[int, Step]) -> bool:
    """Whether a step gives what it takes."""
    if step.kind == "permute":
        return step.dims == tuple(range(len(step.dims)))
    is_plain = step.kind == "reshape" or (step.kind == "combine" and step.coefficients == (None,))
    inner = steps.get(step.inputs[0]) if is_plain else None
    return inner is not None and (inner.shape, inner.dtype) == (step.shape, step.dtype)


def _needed(steps: dict[int, Step], outputs: Sequence[int | None]) -> dict[int, Step]:
    """The steps on which the outputs depend."""
    needed = {output for output in outputs if output is not None}
    for number in reversed(steps):
        if number in needed:
            needed.update(steps[number].inputs)
    return {number: step for number, step in steps.items() if number in needed}


def _merged(step: Step, steps: dict[int, Step], uses: dict[int, int]) -> Step:
    """A combination with combinations among its inputs taken in, and like terms collected."""
    terms: dict[int, Coefficient] = {}
    for index, coefficient in zip(step.inputs, step.coefficients, strict=True):
        inner = steps.get(index)
        if inner is not None and _can_take_in(inner, index, coefficient, step, uses):
            for source, own in zip(inner.inputs, inner.coefficients, strict=True):
                _collect(terms, source, _times(own, coefficient))
        elif inner is not None and inner.kind == "expand" and isinstance(coefficient, Tensor):
            # What is only repeated need not be written out before it is multiplied.
            _collect(terms, inner.inputs[0], coefficient.expand(step.shape))
        else:
            _collect(terms, index, coefficient)
    # A sum that begins with a term as it is has nothing to multiply first.
    order = sorted(terms, key=lambda index: terms[index] is not None)
    return combination(order, [terms[index] for index in order], step.shape, step.dtype)


def _can_take_in(
    inner: Step, index: int, coefficient: Coefficient, outer: Step, uses: dict[int, int]
) -> bool:
    if inner.kind != "combine" or inner.dtype != outer.dtype:
        return False
    if len(inner.inputs) == 1:
        return True
    # A sum that is used once and whose terms are multiplied anyway.
    return uses.get(index, 0) == 1 and (coefficient is None or None not in inner.coefficients)


def _collect(terms: dict[int, Coefficient], source: int, coefficient: Coefficient) -> None:
    if source in terms:
        first = terms[source]
        first = 1.0 if first is None else first
        coefficient = first + (1.0 if coefficient is None else coefficient)
    terms[source] = coefficient


def _times(first: Coefficient, second: Coefficient) -> Coefficient:
    if first is None:
        return second
    return first if second is None else first * second


@dataclass
class Builder:
    """Makes a program step by step.

    Attributes:
        program: The program so far.
        numbers: For each recorded value the number of its step; None for zeros.
    """

    program: Program
    numbers: dict[int, int | None] = field(default_factory=dict)
    _next: int = 0

    def add(self, step: Step) -> int:
        """Append a step and give its number."""
        self.program.steps[self._next] = step
        self._next += 1
        return self._next - 1

    def step(
        self,
        kind: str,
        source: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        apply: Callable[[Stack], Stack],
    ) -> int:
        """Append a step with one input."""
        return self.add(Step(kind, (source,), tuple(shape), dtype, apply))
