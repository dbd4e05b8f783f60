"""Linear programs: a recorded linear map, rewritten for stacks of vectors and simplified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs.simplification import simplified, uses_of
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import Step

Memory = Callable[[], Sequence[Tensor]]
"""Returns memory for the images of a program; called when the first image is computed."""

# The kinds of steps whose results have memory of their own.
_MAKES_NEW = ("matmul", "solve", "combine")


@dataclass
class Program:
    """A linear map from tensors to tensors, to be applied to stacks of vectors.

    Attributes:
        sources: The number of tensors in the argument; steps refer to them as -1, -2, ...
        steps: The steps, by number.
        outputs: For each tensor of the image the number of its step, or None if it is zero.
        shapes: The shape of each tensor of the image.
        dtypes: The dtype of each tensor of the image.
        devices: The device of each tensor of the image.
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
        """Return the images of stacked vectors, without autograd history.

        A result is freed after its last use.

        Args:
            stacks: The vectors, a stack for each source.
            count: How many vectors there are.
            memory: Returns tensors of the images' shapes to write them to; None allocates new ones.
            reuses_memory: Whether a sum may overwrite terms that no other step uses.

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
        if memory is None:
            return self._images(results, count)
        images = memory() if images is None else images
        for output, out in zip(self.outputs, images, strict=True):
            if output is None:
                out.zero_()
            else:
                results[output].put(out)
        return tuple(images)

    def _images(self, results: dict[int, Any], count: int) -> tuple[Tensor, ...]:
        """Return the images in the memory of the results."""
        return tuple(
            torch.zeros(1, dtype=dtype, device=device).expand(count, *shape)
            if output is None
            else results[output].dense()
            for output, shape, dtype, device in zip(
                self.outputs, self.shapes, self.dtypes, self.devices, strict=True
            )
        )

    def finish(self) -> None:
        """Simplify the program and find last uses and results that can be written in place."""
        self.steps, self.outputs = simplified(self.steps, self.outputs)
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
        uses = uses_of(self.steps, self.outputs)
        # A step may overwrite a result that no other step uses.
        for number, step in self.steps.items():
            spare = tuple(uses[index] == 1 and self._makes_new(index) for index in step.inputs)
            if step.kind == "combine" and any(spare):
                self._spare[number] = spare

    def _makes_new(self, number: int) -> bool:
        """Return whether a result has memory of its own and is not a view of another one."""
        step = self.steps.get(number)
        is_the_same = step is not None and step.coefficients == (None,)
        return step is not None and step.kind in _MAKES_NEW and not is_the_same


@dataclass
class Builder:
    """Makes a program step by step.

    Attributes:
        program: The program built so far.
        numbers: For each recorded value the number of its step, or None if it is zero.
    """

    program: Program
    numbers: dict[int, int | None] = field(default_factory=dict)
    _next: int = 0

    def add(self, step: Step) -> int:
        """Append a step and return its number."""
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
        """Append a step with one input and return its number."""
        return self.add(Step(kind, (source,), tuple(shape), dtype, apply))
