"""Apply a linear map to many vectors: one by one, or batched under torch's vmap."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]

from autodiff_core._engines.agreement import LinearMap, Precision, ReportFallback, verify
from autodiff_core._engines.preparation import preparing
from autodiff_core._errors import Fallback, first_line, is_out_of_memory
from autodiff_core._tensors.transformations import batched
from autodiff_core._tensors.vectors import PROBES, Vector, Vectors

# `warnings.catch_warnings` replaces state of the process; two threads that leave the context in the
# wrong order would leave it replaced for good.
_WARNINGS_LOCK = threading.RLock()
_shows_fallbacks = True


def _show_fallbacks(shown: bool) -> None:
    _functorch._set_vmap_fallback_warning_enabled(shown)


@contextmanager
def silent_fallbacks() -> Iterator[None]:
    """Keep torch from printing where vmap runs an operator in a loop; `Batched` reports it once.

    torch prints from its own code where it is not called through Python's bindings of warnings.
    """
    global _shows_fallbacks
    before, _shows_fallbacks = _shows_fallbacks, False
    _show_fallbacks(False)
    try:
        yield
    finally:
        _shows_fallbacks = before
        _show_fallbacks(before)


def one_by_one(
    linear_map: LinearMap, vectors: Vectors, start: int, stop: int, *, keep_graph: bool
) -> tuple[Tensor, ...]:
    """Return the images of the vectors start, ..., stop - 1, stacked, by one application each."""
    images = (
        linear_map(tuple(None if part is None else part[0] for part in vectors.stack(i, i + 1)))
        for i in range(start, stop)
    )
    if keep_graph:
        return tuple(torch.stack(parts) for parts in zip(*images, strict=True))
    first = next(images)
    stacked = tuple(part.new_empty((stop - start, *part.shape)) for part in first)
    for row, image in enumerate(chain((first,), images)):
        for whole, part in zip(stacked, image, strict=True):
            whole[row].copy_(part)
    return stacked


class Batched:
    """A linear map under vmap, checked against the plain map, with a loop as its fallback.

    Some of torch's many batching rules are wrong without raising an error (that of the derivative
    of `torch.cdist` in torch 2.13, for example). So the first batch is compared with one plain
    application of the map to a random combination of its vectors, which by linearity verifies
    every row of the batch: the random-projection check of Freivalds, "Probabilistic machines can
    use less running time" (IFIP 1977). One-hot vectors reach only a part of the function, so a
    batch of dense random vectors is compared with the plain map first.

    A single vector is no batch: the plain map takes it, and there is nothing to verify.
    """

    def __init__(
        self,
        linear_map: LinearMap,
        loop_map: LinearMap,
        *,
        strategy: str,
        keep_graph: bool,
        report: ReportFallback,
        precision: Precision,
    ) -> None:
        """Store the map without computing anything.

        Args:
            linear_map: The map to batch.
            loop_map: The same map outside of any transformation, with which batches are compared
                and which is applied one by one where batching fails.
            strategy: The name of the strategy, for the record of a fallback.
            keep_graph: Whether images must stay differentiable.
            report: Called when the loop takes over.
            precision: The least precise dtype that images are computed in.
        """
        self._linear_map = linear_map
        self._loop_map = loop_map
        self._strategy = strategy
        self._keep_graph = keep_graph
        self._report = report
        self._precision = precision
        self._is_verified = False
        self._has_failed = False
        self._slow_operators: set[str] = set()

    def __call__(self, vectors: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return the images of the vectors start, ..., stop - 1, stacked."""
        if stop - start == 1:
            return one_by_one(self._loop_map, vectors, start, stop, keep_graph=self._keep_graph)
        if not self._has_failed:
            try:
                return self._batch(vectors, start, stop)
            # A transformation can fail with an exception of any type; if the function itself is at
            # fault, the loop raises its error.
            except Exception as error:
                # Users can configure warnings to be raised as errors.
                if is_out_of_memory(error) or isinstance(error, Warning):
                    raise
                reason = first_line(error)
        images = one_by_one(self._loop_map, vectors, start, stop, keep_graph=self._keep_graph)
        if not self._has_failed:
            self._has_failed = True
            self._report(Fallback(self._strategy, "one vector at a time", reason))
        return images

    def _batch(self, vectors: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        if self._is_verified:
            return self._vmapped(vectors.stack(start, stop), stop - start)
        with preparing():
            probe = vectors.probe()
            self._verify(probe, self._vmapped(probe, PROBES), PROBES)
        stacks = vectors.stack(start, stop)
        images = self._vmapped(stacks, stop - start)
        with preparing():
            self._verify(stacks, images, stop - start)
        self._is_verified = True
        return images

    def _verify(self, stacks: Vector, images: tuple[Tensor, ...], count: int) -> None:
        verify(self._loop_map, stacks, images, count, "batched", self._precision)

    def _vmapped(self, stacks: Vector, count: int) -> tuple[Tensor, ...]:
        present = [index for index, stack in enumerate(stacks) if stack is not None]
        parts = [stack for stack in stacks if stack is not None]

        def from_present(*parts: Tensor) -> tuple[Tensor, ...]:
            vector: list[Tensor | None] = [None] * len(stacks)
            for index, part in zip(present, parts, strict=True):
                vector[index] = part
            return self._linear_map(tuple(vector))

        if not present:
            image = self._linear_map(stacks)
            return tuple(part.expand(count, *part.shape) for part in image)
        if self._is_verified and not self._slow_operators:
            return batched(from_present, parts, count, randomness="same")
        with self._watching_for_slow_operators():
            return batched(from_present, parts, count, randomness="same")

    @contextmanager
    def _watching_for_slow_operators(self) -> Iterator[None]:
        """Report operators that vmap runs in a loop, which torch signals only by a warning."""
        reasons: set[str] = set()
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.filterwarnings("always", message=".*batching rule")
            show = warnings.showwarning

            def watch(message: Warning | str, *details: Any) -> None:
                text = str(message)
                if "batching rule" in text:
                    reasons.add(text.split(". ")[0])
                else:
                    show(message, *details)

            warnings.showwarning = watch
            # A caller may have switched them off for the terminal.
            _show_fallbacks(True)
            try:
                yield
            finally:
                _show_fallbacks(_shows_fallbacks)
        for reason in sorted(reasons - self._slow_operators):
            self._slow_operators.add(reason)
            self._report(Fallback(self._strategy, "a loop inside one operator", reason))
