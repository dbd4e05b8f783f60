"""The compiled engine: compile the captured program for chunks of one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from autodiff_core._engines.captured import Captured
from autodiff_core._engines.torch_compiler import EXPANDED, compiled, compiled_now
from autodiff_core._errors import Fallback, first_line, is_out_of_memory
from autodiff_core._programs.flat import Tracer
from autodiff_core._programs.segments import Segment
from autodiff_core._programs.stacks import Stack, dense_stack, one_hot
from autodiff_core._tensors.matrix_product import decompositions
from autodiff_core._tensors.vectors import Vector, Vectors

# Compiling a larger program would take minutes.
MOST_STEPS = 100

_Images = tuple[Tensor, ...]


@dataclass(frozen=True)
class _Kernel:
    """A compiled linear map of chunks of one size.

    Attributes:
        count: The number of vectors in a chunk.
        run: The kernel, called with the number of the first one-hot vector or with the vectors.
    """

    count: int
    run: Callable[..., _Images]


class Compiled(Captured):
    """A linear program compiled for chunks of one size, including the making of one-hot vectors.

    Compiling takes seconds. A smaller chunk is computed as a part of a full one. A kernel is used
    only if its images of its first chunk agree with the plain map; otherwise the program runs as
    it was captured.

    Attributes:
        refusal: The reason why the plain engine has taken over; None while it has not.
        compiler_refusal: The reason why the captured engine has taken over; None while it has
            not.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        """Store the map as `Captured` does."""
        super().__init__(*given, **options)
        self._kernels: dict[int | None, _Kernel] = {}
        self._largest = 1
        self.compiler_refusal: str | None = None

    @property
    def used(self) -> str:
        """The name of the engine in use."""
        captured = super().used
        is_compiled = captured == "captured" and self.compiler_refusal is None
        return "compiled" if is_compiled else captured

    @property
    def refusals(self) -> tuple[str | None, ...]:
        """The reason why each faster engine is not used; None for an engine that is."""
        return self.refusal, self.compiler_refusal

    def _captured(self, vectors: Vectors, start: int, stop: int) -> _Images:
        self._largest = max(self._largest, stop - start)
        return super()._captured(vectors, start, stop)

    def _of_stacks(self, stacks: Sequence[Tensor], count: int) -> _Images:
        def run(kernel: _Kernel) -> _Images:
            missing = kernel.count - count
            full = [torch.cat((s, s.new_zeros((missing, *s.shape[1:])))) for s in stacks]
            return tuple(image[:count] for image in kernel.run(*full))

        images = self._by_kernel(None, count, run, lambda: tuple(stacks))
        return super()._of_stacks(stacks, count) if images is None else images

    def _of_basis(self, index: int, start: int, stop: int) -> _Images:
        space = self._space[index]

        def run(kernel: _Kernel) -> _Images:
            first = min(start, space.numel() - kernel.count)
            images = kernel.run(torch.tensor(first, device=space.device))
            return tuple(image[start - first : stop - first] for image in images)

        def vectors() -> Vector:
            return self._only(index, one_hot(start, stop, space).dense())

        images = self._by_kernel(index, stop - start, run, vectors)
        return super()._of_basis(index, start, stop) if images is None else images

    def _by_kernel(
        self,
        index: int | None,
        count: int,
        run: Callable[[_Kernel], _Images],
        vectors: Callable[[], Vector],
    ) -> _Images | None:
        """Return the images of a chunk; None if no kernel can be used."""
        if self.compiler_refusal is not None:
            return None
        self._program(index)  # what cannot be captured is no matter of the compiler
        try:
            kernel = self._kernels.get(index)
            if kernel is not None and count <= kernel.count:
                return run(kernel)
            # This chunk may hold only the last elements of a tensor; full ones follow.
            size = self._largest if index is None else self._space[index].numel()
            size = min(size, self._largest)
            kernel = self._fused_kernel(index, size) or self._kernel(index, size)
            images = run(kernel)
            self._verify(vectors(), images, count)
            self._kernels[index] = kernel
            return images
        # A compiler fails with exceptions of any type.
        except Exception as error:
            self._kernels.clear()
            self._largest = 1
            for each in self._programs.values():
                each.forget_flat_forms()
            if is_out_of_memory(error) or isinstance(error, Warning):
                raise
            self.compiler_refusal = _reason(error, self._space[0].device.type)
        if self._report is not None:
            reason = self.compiler_refusal
            self._report(Fallback(self._strategy, "the captured engine", reason))
        return None

    def _kernel(self, index: int | None, count: int) -> _Kernel:
        """Return the whole program as one kernel.

        Raises:
            RuntimeError: It has too many steps.
        """
        program = self._program(index)
        if len(program.steps) > MOST_STEPS:
            raise RuntimeError(
                f"a program of {len(program.steps)} steps takes too long, and its steps neither "
                "repeat nor follow one another without products"
            )

        def of_vectors(*stacks: Tensor) -> _Images:
            # The compiler plans memory itself.
            given = [dense_stack(stack) for stack in stacks]
            return program.apply(given, count, reuses_memory=False)

        def of_basis(start: Tensor) -> _Images:
            assert index is not None
            space = self._space[index]
            ones = start + torch.arange(count, device=space.device)
            elements = torch.arange(space.numel(), device=space.device)
            basis = (ones[:, None] == elements).to(space.dtype)
            return of_vectors(basis.reshape(count, *space.shape))

        table = {**EXPANDED, **decompositions()}
        with torch.no_grad():
            if index is None:
                given = [part.new_zeros((count, *part.shape)) for part in self._space]
                traced = make_fx(of_vectors, decomposition_table=table)(*given)
            else:
                first = torch.tensor(0, device=self._space[index].device)
                traced = make_fx(of_basis, decomposition_table=table)(first)
        return _Kernel(count, _runnable(traced, as_graph=self._space[index or 0].is_cuda))

    def _fused_kernel(self, index: int | None, count: int) -> _Kernel | None:
        """Return a program in which kernels compute segments; None if it has none of a CPU."""
        program = self._program(index)
        if {device.type for device in program.devices} != {"cpu"}:
            return None

        def stacks_of(*given: Tensor) -> list[Stack]:
            if index is None:
                return [dense_stack(stack) for stack in given]
            first = int(given[0])
            return [one_hot(first, first + count, self._space[index])]

        if index is None:
            given = [part.new_ones((count, *part.shape)) for part in self._space]
        else:
            # Vectors in the middle reach what all others do.
            middle = (self._space[index].numel() - count) // 2
            given = [torch.tensor(middle)]
        program.forget_flat_forms()
        program.apply(stacks_of(*given), count, reuses_memory=False, tracer=Tracer())
        groups = program.segments()
        if not groups:
            return None
        fused: list[Segment] = []
        for group in groups:
            run = _compiled_segment(group[0], program.inputs_like(group[0], count))
            fused += [replace(segment, run=run) for segment in group]
        program.fuse(fused)
        return _Kernel(count, lambda *given: self._applied(program, stacks_of(*given), count))


def _compiled_segment(segment: Segment, given: Sequence[Tensor]) -> Callable[..., Any]:
    """Return the kernel of a segment for given inputs, and the constants of any repetition."""
    values = [*given, *segment.constants]
    table = {**EXPANDED, **decompositions()}
    with torch.no_grad():
        traced = make_fx(segment.run, decomposition_table=table)(*values)
        return compiled_now(traced, *values)


def _runnable(traced: GraphModule, *, as_graph: bool) -> Callable[..., _Images]:
    """Return a compiled trace, run without history.

    As a CUDA graph, small chunks take less time than launching their kernels one by one.
    """
    run = compiled(traced, as_graph=as_graph)

    def without_grad(*tensors: Tensor) -> _Images:
        with torch.no_grad():
            if not as_graph:
                return tuple(run(*tensors))
            torch.compiler.cudagraph_mark_step_begin()
            return tuple(image.clone() for image in run(*tensors))

    return without_grad


def _reason(error: Exception, kind: str) -> str:
    """Return why a program was not compiled, in one line."""
    # The compiler looks up what a kind of device needs in a table.
    if str(error).splitlines()[:1] == [f"KeyError: '{kind}'"]:
        return f"torch.compile does not make kernels for devices of the kind {kind}"
    return first_line(error)
