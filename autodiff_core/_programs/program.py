"""Linear programs: a recorded linear map, rewritten for stacks of vectors and simplified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs.flat import (
    Flat,
    Form,
    Tracer,
    as_stack,
    flats_at,
    value_of,
    value_of_source,
)
from autodiff_core._programs.recording import UncapturableError
from autodiff_core._programs.runs import runs
from autodiff_core._programs.segments import Segment, segments
from autodiff_core._programs.simplification import cut_up, simplified, uses_of
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import NOT_LINEAR, Step, in_full, timed

Memory = Callable[[], Sequence[Tensor]]
"""Returns memory for the images of a program; called when the first image is computed."""

MANY_STEPS = 16
"""A program of fewer steps, all with rules, takes longer to trace than that saves."""

_SECONDS_OF_A_STEP = 10e-6
_SECONDS_OF_VMAP = 100e-6
"""What the bookkeeping of a step was measured to take, and beside it that of one without a rule."""

_SHORT = 10
"""Bookkeeping shows in chunks that take less than so many times as long."""

# The kinds of steps whose results have memory of their own.
_MAKES_NEW = ("matmul", "solve", "combine", "overwrite", "gather", "scatter", "transform")


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
        flat_count: The number of vectors for which flat forms of the steps are kept; 0 if none are.
        meets_denormals: Whether denormal numbers slow it down.
    """

    sources: int
    steps: dict[int, Step] = field(default_factory=dict)
    outputs: tuple[int | None, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[torch.dtype, ...] = ()
    devices: tuple[torch.device, ...] = ()
    flat_count: int = 0
    meets_denormals: bool = False
    _order: list[tuple[int, Step, tuple[int, ...], list[int]]] = field(default_factory=list)
    _forms: dict[int, Form] = field(default_factory=dict)
    _derived: dict[int, Flat] = field(default_factory=dict)
    _flats: dict[int, Flat | None] = field(default_factory=dict)
    _fused: dict[int, Segment] = field(default_factory=dict)
    _runs: dict[int, Segment] = field(default_factory=dict)
    _misses: tuple[int, int] = (0, 0)
    _last_chunk: tuple[int, float] = (0, 0.0)
    _cut_up: frozenset[int] = frozenset()
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
        tracer: Tracer | None = None,
    ) -> tuple[Tensor, ...]:
        """Return the images of stacked vectors, without autograd history.

        A result is freed after its last use. A step of which all stacks are zero gives zero.

        Args:
            stacks: The vectors, a stack for each source.
            count: How many vectors there are.
            memory: Returns tensors of the images' shapes to write them to; None allocates new ones.
            reuses_memory: Whether a sum may overwrite terms that no other step uses.
            tracer: Notes the flat forms that are missing, for this count or for any; None uses
                those that there are.

        Returns:
            For each tensor of the image one of shape (count, *shape).
        """
        prepares = tracer is not None and not tracer.for_any_count
        if prepares:
            self._note(count)
        if count != self._misses[0]:
            self._misses = (count, 0)
        is_noted = count == self.flat_count
        flats, fused = (self._flats, self._fused) if is_noted else ({}, {})
        together = fused or (self._runs if is_noted and reuses_memory else {})
        derives = is_noted and bool(self._derived)
        if derives:
            flats = {**self._derived, **flats}
        inside: frozenset[int] = frozenset()
        results = {
            -1 - i: value_of_source(stack, is_cut_up=-1 - i in self._cut_up)
            for i, stack in enumerate(stacks)
        }
        images: Sequence[Tensor] | None = None
        for number, step, inputs, finished in self._order:
            segment = together.get(number)
            if segment is not None and segment.fits(results):
                results.update(segment.images(results))
                inside = segment.numbers
            if number in inside:
                for index in finished:
                    results.pop(index, None)
                continue
            given = [results[index] for index in inputs]
            if step.kind in ("general", "combine"):
                given = in_full(step, given, count)
            flat = flats.get(number)
            if flat is not None and flat.fits(given):
                results[number] = flat.result(given)
                if derives:
                    self._flats[number] = flat
            elif all(each is None for each in given):
                results[number] = None
            elif memory is not None and number in self._placed:
                images = memory() if images is None else images
                out = images[self._placed[number]].view(count, *step.shape)
                results[number] = value_of(step.apply(*self._stacks(step, given, count), out=out))
            else:
                # A compiler may give two equal results the same memory, or that of an input.
                spare = self._spare.get(number) if reuses_memory and not fused else None
                results[number] = self._applied(number, given, count, spare, tracer)
            for index in finished:
                del results[index]
        if prepares:
            self._runs = runs(self._order, self._flats, self.outputs)
        if memory is None:
            return self._images(results, count)
        images = memory() if images is None else images
        for output, out in zip(self.outputs, images, strict=True):
            value = None if output is None else results[output]
            if value is None:
                out.zero_()
            else:
                as_stack(value).put(out)
        return tuple(images)

    def segments(self) -> list[list[Segment]]:
        """Return segments worth compiling, in groups, of the flat forms that were noted last."""
        flats = {number: flat for number, flat in self._flats.items() if flat is not None}
        return segments(self._order, flats, self.outputs)

    def timed(self, seconds: dict[int, float]) -> Program:
        """Return the same program, which notes how long each step takes."""

        def of(number: int, function: Any) -> Any:
            return partial(timed, seconds, number, function)

        steps = {n: replace(step, apply=of(n, step.apply)) for n, step in self.steps.items()}
        order = [(number, steps[number], *rest) for number, _, *rest in self._order]
        flats = {n: flat and replace(flat, run=of(n, flat.run)) for n, flat in self._flats.items()}
        return replace(self, steps=steps, _order=order, _flats=flats, _runs={})

    def inputs_like(self, segment: Segment, count: int) -> list[Tensor]:
        """Return tensors like the inputs of a segment of steps."""
        found = []
        for number, strides in segment.inputs.items():
            step = self.steps[number]
            found.append(torch.empty_strided((count, *step.shape), strides, dtype=step.dtype))
        return [each.fill_(1) for each in found]

    def lacks_flat_forms(self, count: int) -> bool:
        """Return whether noting flat forms for so many vectors pays where chunks are short.

        The first chunks of a matrix may reach few of the steps, and the last one is smaller. Noting
        what is missing costs about as much as doing without it in as many steps as there are, of
        chunks of one size that follow one another.
        """
        return count > self.flat_count or (
            self._misses[0] == count and self._misses[1] >= len(self.steps)
        )

    def note_seconds(self, count: int, seconds: float) -> None:
        """Note how long a chunk of so many vectors has taken."""
        self._last_chunk = (count, seconds)

    def is_short(self, count: int) -> bool:
        """Return whether bookkeeping is a part of the time that a chunk of so many vectors takes.

        In a longer one flat forms save nothing that shows. The last chunk says how long it takes at
        most; it is not known before the first one.
        """
        last, seconds = self._last_chunk
        return last > 0 and self.is_short_within(seconds * max(count / last, 1))

    def is_short_within(self, seconds: float) -> bool:
        """Return whether bookkeeping is a part of a time."""
        return seconds < _SHORT * self._bookkeeping

    @cached_property
    def _bookkeeping(self) -> float:
        kinds = [step.kind for step in self.steps.values()]
        return _SECONDS_OF_A_STEP * len(kinds) + _SECONDS_OF_VMAP * kinds.count("general")

    def forget_flat_forms(self) -> None:
        """Compute step by step again, until flat forms are noted."""
        self._derived, self._flats, self._fused, self._runs = {}, {}, {}, {}
        self.flat_count, self._misses = 0, (0, 0)

    def has_forms(self, count: int) -> bool:
        """Return whether flat forms for any count can still give some for so many vectors."""
        return bool(self._forms) and count != self.flat_count

    def derive(self, count: int) -> None:
        """Take flat forms for so many vectors from those for any; the next chunk tries them."""
        self._note(count)
        self._derived = flats_at(self._forms, count)

    def keep_derived(self) -> None:
        """Keep the derived flat forms that were used, unless most steps could use none."""
        self._derived = {}
        if self._misses[1] > len(self._flats):
            self.forget_forms()  # these vectors lie otherwise in memory
        else:
            self._runs = runs(self._order, self._flats, self.outputs)

    def forget_forms(self) -> None:
        """Forget the flat forms for any count."""
        self._forms = {}
        self.forget_flat_forms()

    def _note(self, count: int) -> None:
        """Prepare for noting flat forms, beside those that there are for so many vectors."""
        if count != self.flat_count:
            self.forget_flat_forms()
        self.flat_count, self._misses = count, (count, 0)

    def fuse(self, found: Sequence[Segment]) -> None:
        """Let segments compute the results of their steps, until flat forms are noted again."""
        self._fused = {segment.first: segment for segment in found}

    @cached_property
    def gains_when_flat(self) -> bool:
        """Whether the bookkeeping of the steps is a cost beside that of their operators."""
        kinds = [step.kind for step in self.steps.values()]
        return "general" in kinds or len(kinds) >= MANY_STEPS

    def _applied(
        self,
        number: int,
        given: Sequence[Any],
        count: int,
        spare: tuple[bool, ...] | None,
        tracer: Tracer | None,
    ) -> Any:
        """Return the result of one step, and keep its flat form where a tracer finds one."""
        step = self.steps[number]
        stacks = self._stacks(step, given, count)
        apply = partial(step.apply, *stacks, **({} if spare is None else {"spare": spare}))
        is_known = count == self.flat_count and number in self._flats
        if step.kind == "pick" or is_known or any(type(each) is not Tensor for each in given):
            return value_of(apply())
        if tracer is None:
            self._misses = (count, self._misses[1] + 1)
            return value_of(apply())
        result, form = tracer.traced(apply, given)
        if not tracer.for_any_count:
            self._flats[number] = form and form.at(count)
        elif form is not None:
            self._forms[number] = form
        return value_of(result)

    def _stacks(self, step: Step, given: Sequence[Any], count: int) -> list[Any]:
        """Return what a step is applied to; a sum leaves out zeros by itself."""
        if step.kind in ("combine", "pick"):
            return [each if each is None else as_stack(each) for each in given]
        like = next(each for each in given if each is not None)
        return [
            self._zeros(index, count, like) if each is None else as_stack(each)
            for index, each in zip(step.inputs, given, strict=True)
        ]

    def _zeros(self, index: int, count: int, like: Any) -> Stack:
        step = self.steps[index]
        device = (like if isinstance(like, Tensor) else like.data).device
        return Stack(torch.zeros(count, *step.shape, dtype=step.dtype, device=device), step.shape)

    def _images(self, results: dict[int, Any], count: int) -> tuple[Tensor, ...]:
        """Return the images in the memory of the results."""
        return tuple(
            torch.zeros(1, dtype=dtype, device=device).expand(count, *shape)
            if output is None or results[output] is None
            else as_stack(results[output]).dense()
            for output, shape, dtype, device in zip(
                self.outputs, self.shapes, self.dtypes, self.devices, strict=True
            )
        )

    def finish(self) -> None:
        """Simplify the program and find last uses and results that can be written in place.

        Raises:
            UncapturableError: The program needs a step that is not linear.
        """
        self.steps, self.outputs = simplified(self.steps, self.outputs)
        if any(step.kind == NOT_LINEAR for step in self.steps.values()):
            raise UncapturableError("the map is not linear: a constant is added")
        for place, output in enumerate(self.outputs):
            number = output
            while number in self.steps and self.steps[number].kind == "reshape":
                number = self.steps[number].inputs[0]
            if number in self.steps and self.steps[number].takes_memory:
                self._placed[number] = place
        self._cut_up = cut_up(self.steps)
        last: dict[int, int] = {}
        for number, step in self.steps.items():
            for index in (*step.inputs, number):
                last[index] = number
        for output in self.outputs:
            if output is not None:
                last.pop(output, None)
        finished: dict[int, list[int]] = {number: [] for number in self.steps}
        for index, number in last.items():
            finished[number].append(index)
        self._order = [(n, step, step.inputs, finished[n]) for n, step in self.steps.items()]
        uses = uses_of(self.steps, self.outputs)
        # A step may overwrite a result that no other step uses.
        for number, step in self.steps.items():
            spare = tuple(uses[index] == 1 and self._makes_new(index) for index in step.inputs)
            if step.kind in ("combine", "overwrite") and any(spare):
                self._spare[number] = spare

    def _makes_new(self, number: int) -> bool:
        """Return whether a result has memory of its own and is not a view of another one."""
        step = self.steps.get(number)
        return step is not None and step.kind in _MAKES_NEW and not step.is_one_term_as_it_is


@dataclass
class Builder:
    """Makes a program step by step.

    Attributes:
        program: The program built so far.
        numbers: For each recorded value the number of its step, or None if it is zero.
        notes: What rules know of the steps that they appended, by number, for the rules of others,
            and what several steps share, by its name.
    """

    program: Program
    numbers: dict[int, int | None] = field(default_factory=dict)
    notes: dict[Any, Any] = field(default_factory=dict)
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
        selects: Callable[[Tensor], Tensor] | None = None,
    ) -> int:
        """Append a step with one input and return its number."""
        return self.add(Step(kind, (source,), tuple(shape), dtype, apply, selects=selects))
