"""The captured engine: record a linear map once, apply it to chunks as a linear program."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from autodiff_core._engines.agreement import (
    LinearMap,
    Precision,
    ReportFallback,
    require_agreement,
    rounded_otherwise,
    verify,
)
from autodiff_core._engines.denormals import (
    can_be_scaled,
    has_denormal_constants,
    has_denormals,
    scaled_images,
)
from autodiff_core._engines.fusion import predictions
from autodiff_core._engines.preparation import announce_preparation, preparing
from autodiff_core._errors import Fallback, first_line, is_out_of_memory
from autodiff_core._programs.collection import without_collection
from autodiff_core._programs.flat import Tracer, count_to_note
from autodiff_core._programs.program import Memory, Program
from autodiff_core._programs.recording import Recording, record
from autodiff_core._programs.rules.lowering import lower
from autodiff_core._programs.stacks import Stack, dense_stack, one_hot
from autodiff_core._tensors.contiguous import empty_side_by_side
from autodiff_core._tensors.reused_memory import ReusedMemory, keep_freed_memory
from autodiff_core._tensors.vectors import PROBES, StandardBasis, Vector, Vectors, combination

Apply = Callable[[Vectors, int, int], tuple[Tensor, ...]]
"""Returns the images of a range of vectors."""

_MOST_TENSORS = 4
"""The largest number of tensors for which a chunk of one-hot vectors is divided by tensor.

With more, the tensors are so small that recording a program for each costs more than it saves.
"""

FEW_ELEMENTS = 4
"""A program for this many vectors or fewer takes longer to record and verify than it saves."""


class Captured:
    """A linear map recorded once and applied to chunks as a linear program.

    What does not depend on the vectors is computed only once, successive scalings are merged, the
    first product with one-hot vectors becomes a selection of rows, and entries that one-hot
    vectors cannot reach, which are zero, are not computed.

    A program is used only after it has agreed with the plain map: on random vectors, and on the
    first chunk of one-hot vectors over each tensor.

    Attributes:
        refusal: The reason why the plain engine has taken over; None while it has not.
    """

    def __init__(
        self,
        linear_map: LinearMap,
        space: Sequence[Tensor],
        plain: Apply,
        *,
        strategy: str,
        report: ReportFallback | None,
        precision: Precision,
        waits: Callable[[], bool] = lambda: False,
    ) -> None:
        """Store the map without computing anything.

        Args:
            linear_map: The map of a vector over `space`, in which None stands for zeros.
            space: Tensors of the shapes, dtypes and devices that a vector has.
            plain: The plain engine, used where the map cannot be captured.
            strategy: The name of the strategy, for the record of a fallback.
            report: Called when the plain engine takes over; None if the user did not name an
                engine.
            precision: The least precise dtype that images are computed in.
            waits: Returns whether the plain engine is to compute for now.
        """
        keep_freed_memory()
        self._linear_map = linear_map
        self._space = space
        self._plain = plain
        self._strategy = strategy
        self._report = report
        self._precision = precision
        self._programs: dict[int | None, Program] = {}
        self._verified_bases: set[int] = set()
        self._reused = ReusedMemory()
        self.refusal: str | None = None
        self._waits = waits

    @property
    def used(self) -> str:
        """The name of the engine in use."""
        return "captured" if self.refusal is None and not self._waits() else "plain"

    @property
    def refusals(self) -> tuple[str | None, ...]:
        """The reason why each faster engine is not used; None for an engine that is."""
        return (self.refusal,)

    def __call__(self, vectors: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return the images of the vectors start, ..., stop - 1, stacked."""
        if self.refusal is None and not self._waits():
            try:
                return self._captured(vectors, start, stop)
            # As in Batched: capturing can fail with an exception of any type.
            except Exception as error:
                if is_out_of_memory(error) or isinstance(error, Warning):
                    raise
                refusal = first_line(error)
            # If the function itself is at fault, the plain engine raises its error.
            images = self._plain(vectors, start, stop)
            self.refusal = refusal
            self._programs.clear()
            if self._report is not None:
                self._report(Fallback(self._strategy, "the plain engine", refusal))
            return images
        return self._plain(vectors, start, stop)

    def forget(self) -> None:
        """Release the memory of what was recorded."""
        self._programs.clear()
        self._verified_bases.clear()

    def _captured(self, vectors: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        if isinstance(vectors, StandardBasis):
            parts = vectors.parts(start, stop)
            if parts is not None and len(parts) <= _MOST_TENSORS:
                images = [
                    self._one_by_one(*part) if self._has_few(part[0]) else self._of_basis(*part)
                    for part in parts
                ]
                if len(images) == 1:
                    return images[0]
                return tuple(torch.cat(pieces) for pieces in zip(*images, strict=True))
        stacks = [
            part.new_zeros((stop - start, *part.shape)) if stack is None else stack
            for stack, part in zip(vectors.stack(start, stop), self._space, strict=True)
        ]
        return self._of_stacks(stacks, stop - start)

    def _of_stacks(self, stacks: Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
        """Return the images of stacked vectors over all tensors."""
        given = [dense_stack(stack) for stack in stacks]
        return self._images(self._program(None), given, count, lambda: tuple(stacks))

    def _of_basis(self, index: int, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return the images of a range of one-hot vectors over one tensor."""
        program = self._program(index)
        basis = one_hot(start, stop, self._space[index])

        def vectors() -> Vector:
            return self._only(index, basis.dense())

        is_verified = index in self._verified_bases
        images = self._images(program, [basis], stop - start, vectors, is_verified=is_verified)
        self._verified_bases.add(index)
        return images

    def _images(
        self,
        program: Program,
        stacks: Sequence[Stack],
        count: int,
        vectors: Callable[[], Vector],
        *,
        is_verified: bool = True,
    ) -> tuple[Tensor, ...]:
        """Apply a program, by flat steps once these have given the right images.

        The chunks before tell whether flat steps pay. In the first one, which is verified in any
        case, those that were noted for any count cost nothing.

        Args:
            program: The program.
            stacks: The vectors.
            count: How many there are.
            vectors: Returns them as dense tensors of all the space.
            is_verified: Whether images of such vectors have agreed with the plain map.
        """
        pays = program.is_short(count)
        if program.lacks_flat_forms(count):
            # What this takes does not grow with the chunk.
            derives = program.has_forms(count) and (not is_verified or program.is_short(1))
            if derives and not predictions():
                images = self._by_forms(program, stacks, count, vectors)
                if images is not None:
                    return images
            if program.gains_when_flat and (pays or predictions()):
                return self._first_by_flat_steps(program, stacks, count)
        started = time.perf_counter()
        images = self._applied(program, stacks, count)
        program.note_seconds(count, time.perf_counter() - started)
        if not is_verified:
            with preparing():
                self._verify(vectors(), images, count)
        if program.gains_when_flat and program.lacks_flat_forms(count) and program.is_short(count):
            # The next one of this size notes flat forms.
            announce_preparation()
        return images

    def _by_forms(
        self,
        program: Program,
        stacks: Sequence[Stack],
        count: int,
        vectors: Callable[[], Vector],
    ) -> tuple[Tensor, ...] | None:
        """Apply a program by what was noted for any count, and verify that.

        None if that is not right for this count: an operator can depend on it in ways that the
        sizes of its tensors do not tell.
        """
        try:
            with preparing(), without_collection():
                program.derive(count)
            started = time.perf_counter()
            images = self._computed(program, stacks, count)
            program.note_seconds(count, time.perf_counter() - started)
            with preparing(), without_collection():
                self._verify(vectors(), images, count)
                program.keep_derived()
        except Exception as error:
            program.forget_flat_forms()
            if is_out_of_memory(error) or isinstance(error, Warning):
                raise
            program.forget_forms()
            return None
        return images

    def _first_by_flat_steps(
        self, program: Program, stacks: Sequence[Stack], count: int
    ) -> tuple[Tensor, ...]:
        """Apply a program, note flat steps, and compare their images with those of the others."""
        generator = torch.Generator().manual_seed(count)
        weights = torch.randn(count, generator=generator, dtype=torch.float64)
        with preparing(), torch.no_grad():
            with without_collection():
                images = program.apply(stacks, count, tracer=Tracer())
            expected = [image for image in combination(weights, images) if image is not None]
            del images
        images = self._applied(program, stacks, count)
        with preparing(), torch.no_grad():
            given = combination(weights, images)
            # The same numbers in the same order.
            again = partial(list, expected)
            require_agreement(expected, given, images, "flat", self._precision, again)
        return images

    def _applied(self, program: Program, stacks: Sequence[Stack], count: int) -> tuple[Tensor, ...]:
        """Apply a program, to scaled vectors if denormal numbers would slow it down."""
        if wanted := predictions():
            seconds: dict[int, float] = {}
            images = self._computed(program.timed(seconds), stacks, count)
            for each in wanted:
                each.add(program, seconds)
            return images
        return self._computed(program, stacks, count)

    def _computed(
        self, program: Program, stacks: Sequence[Stack], count: int
    ) -> tuple[Tensor, ...]:
        memory = self._memory(program, count)
        if program.meets_denormals:
            images = scaled_images(program, stacks, count, memory)
            if images is not None:
                return images
        return program.apply(stacks, count, memory)

    def _probe(self, places: Sequence[int], count: int) -> list[Tensor]:
        """Return a stack of a one-hot vector of the largest tensor and of random ones.

        They are the same in every process, whichever chunks that computes.
        """
        largest = max(places, key=lambda place: self._space[place].numel())
        stacks = []
        for place, stack in zip(places, self._random(places, count, seed=5), strict=True):
            stack[0] = 0
            if place == largest and stack.numel():
                stack[0].view(-1)[stack[0].numel() // 2] = 1
            stacks.append(stack)
        return stacks

    def _random(self, places: Sequence[int], count: int, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [_random(self._space[place], count, generator) for place in places]

    def _has_few(self, index: int) -> bool:
        """Return whether a tensor beside larger ones is too small for a program of its own.

        The answer depends on sizes alone, so that every process computes the same numbers.
        """
        sizes = [part.numel() for part in self._space]
        return sizes[index] <= FEW_ELEMENTS < max(sizes)

    def _one_by_one(self, index: int, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return the images of a range of one-hot vectors over one tensor, by the plain map."""
        basis = one_hot(start, stop, self._space[index]).dense()
        with torch.no_grad():
            images = [self._linear_map(self._only(index, vector)) for vector in basis]
            return tuple(torch.stack(parts) for parts in zip(*images, strict=True))

    def _memory(self, program: Program, count: int) -> Memory | None:
        """Return memory for images over several tensors that form a block without a copy."""
        dtypes, devices = set(program.dtypes), set(program.devices)
        if len(program.shapes) == 1 or len(dtypes) > 1 or len(devices) > 1:
            return None
        empty = partial(self._reused.empty, dtype=dtypes.pop(), device=devices.pop())
        return partial(empty_side_by_side, count, program.shapes, empty)

    def _program(self, index: int | None) -> Program:
        """Return the program for vectors over one tensor, or over all, verified on random ones."""
        if len(self._space) == 1:
            index = None  # one tensor is all of them
        if index not in self._programs:
            places = range(len(self._space)) if index is None else (index,)
            parts = [stack[0] for stack in self._random(places, 1, seed=6)]
            with preparing(), torch.no_grad(), without_collection():
                recording = self._recorded(places, parts)
                program = lower(recording)
                images = self._probed(program, places, parts)
                # The last of several vectors, to detect vectors that are mixed up.
                last = tuple(image[-1] for image in images)
                vector = self._at(places, parts)
                again = partial(rounded_otherwise, self._linear_map, vector)
                plain, precision = recording.images, self._precision
                of_random = [image[1:] for image in images]
                require_agreement(plain, last, of_random, "captured", precision, again)
                _require_dtypes(images, recording.images)
                if program.gains_when_flat and can_be_scaled(program):
                    # Those of a one-hot vector: a chunk has such vectors.
                    meets = has_denormals([image[0] for image in images])
                    program.meets_denormals = meets and not has_denormal_constants(recording)
            self._programs[index] = program
        return self._programs[index]

    def _probed(
        self, program: Program, places: Sequence[int], parts: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the images of probes, the last of which is given, and note flat steps for any."""
        shapes = [*(step.shape for step in program.steps.values()), *(p.shape for p in parts)]
        count = count_to_note(shapes) if program.gains_when_flat else None
        probe, tracer = self._probe(places, 1 + PROBES), Tracer(for_any_count=True)
        for stack, part in zip(probe, parts, strict=True):
            stack[-1] = part
        is_noted, started = count == 1 + PROBES, time.perf_counter()
        given = [dense_stack(stack) for stack in probe]
        images = program.apply(given, 1 + PROBES, tracer=tracer if is_noted else None)
        is_short = program.is_short_within(time.perf_counter() - started)
        if is_short and count is not None and not is_noted:
            given = [dense_stack(stack) for stack in self._probe(places, count)]
            program.apply(given, count, tracer=tracer)
        return images

    def _recorded(self, places: Sequence[int], vector: Sequence[Tensor]) -> Recording:
        def of_present(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return self._linear_map(self._at(places, parts))

        return record(of_present, tuple(vector))

    def _at(self, places: Sequence[int], parts: Sequence[Tensor]) -> Vector:
        """Return the vector that has parts in some places and zeros elsewhere."""
        vector: list[Tensor | None] = [None] * len(self._space)
        for place, part in zip(places, parts, strict=True):
            vector[place] = part
        return tuple(vector)

    def _only(self, index: int, stack: Tensor) -> Vector:
        return tuple(stack if place == index else None for place in range(len(self._space)))

    def _verify(self, stacks: Vector, images: Sequence[Tensor], count: int) -> None:
        expected = verify(self._linear_map, stacks, images, count, "captured", self._precision)
        _require_dtypes(images, expected)


def _require_dtypes(images: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    if any(i.dtype != plain.dtype for i, plain in zip(images, expected, strict=True)):
        raise RuntimeError("the captured result has another dtype")


def _random(like: Tensor, count: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randn((count, *like.shape), generator=generator, dtype=torch.float64)
    return drawn.to(like.device, like.dtype)
