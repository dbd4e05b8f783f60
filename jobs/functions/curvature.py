"""A loss over data as what its curvature matrices need: outputs of samples, and a loss of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from jobs.functions.batch_sum import BatchSum, Halves

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class CurvatureTerm:
    """Some samples: their curvature is JᵀHJ, J of the outputs, H of the loss.

    Attributes:
        outputs: A function of the point and of the data; it returns one tensor.
        data: The tensors with a leading dimension over samples that it takes after the point.
        loss: A function of the outputs, and of the outputs at the point of the job; it includes the
            weight of these samples.
        samples: The number of samples; None where the data have no common dimension over them.
    """

    outputs: Callable[..., Tensor]
    data: tuple[Tensor, ...]
    loss: Callable[[Tensor, Tensor], Tensor]
    samples: int | None


# Makes a term of constants, and of the names of those with a dimension over samples.
MakeTerm = Callable[[Tensors, Sequence[str]], CurvatureTerm]


class Curvature(BatchSum):
    """The sum of the losses of all batches, and the terms of its curvature matrix.

    Attributes:
        kind: ``ggn`` or ``fisher``.
        base: The tensors of the point of the job.
        width: How many elements the tensors have by which the outputs are differentiated.
    """

    def __init__(
        self,
        kind: str,
        base: Sequence[Tensor],
        batches: Callable[[], Iterator[tuple[Tensors, float]]],
        names: Sequence[str],
        loss_of: Callable[[Tensors], Callable[..., Any]],
        term_of: MakeTerm,
        reduction: str,
        halves: Callable[[], Halves | None] = lambda: None,
    ) -> None:
        """Describe the sum; nothing is loaded yet.

        Args:
            kind: ``ggn`` or ``fisher``.
            base: The tensors of the point of the job.
            batches: Loads one batch after the other, and yields its constants with its weight.
            names: The constants with a leading dimension over samples; none where the samples
                cannot be taken apart.
            loss_of: Returns the loss of a batch as a function of the point.
            term_of: Makes a term of some samples, without a weight.
            reduction: ``mean`` or ``sum``: how the loss combines samples.
            halves: As for `BatchSum`.
        """
        super().__init__(lambda: ((loss_of(part), weight) for part, weight in batches()), halves)
        self.kind = kind
        self.base = tuple(base)
        self.width = sum(each.numel() for each in base)
        self._parts = batches
        self._loss_of = loss_of
        self._names = tuple(names)
        self._term_of = term_of
        self._reduction = reduction

    def of_some(
        self,
        fill: Callable[..., Sequence[Tensor]],
        base: Sequence[Tensor],
        width: int | None = None,
    ) -> Curvature:
        """Return the loss as a function of other tensors, which determine the point.

        Args:
            fill: Returns the point of these tensors.
            base: The tensors at the point of the job.
            width: How many elements the tensors have that they are parts of; None for whole ones.
        """

        def changed(call: Callable[..., Any]) -> Callable[..., Any]:
            count = len(base)
            return lambda *tensors: call(*fill(*tensors[:count]), *tensors[count:])

        found = self.changed(changed)
        found.base = tuple(base)
        found.width = sum(each.numel() for each in base) if width is None else width
        return found

    def changed(self, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Curvature:
        """Return the loss with changed functions: that of the point, and those of the outputs.

        Args:
            change: Changes a function of the point and, after it, of data of samples.
        """

        def term_of(part: Tensors, names: Sequence[str]) -> CurvatureTerm:
            term = self._term_of(part, names)
            return replace(term, outputs=change(term.outputs))

        found = self.mapped(change)
        assert isinstance(found, Curvature)
        found._term_of = term_of
        return found

    def curvature_terms(self, size: int | None = None) -> Iterator[tuple[int, CurvatureTerm]]:
        """Yield the number of the batch and the term, for all terms of the curvature matrix.

        Args:
            size: The largest number of samples in a term; None for whole batches.
        """
        for number, (part, weight) in enumerate(self._parts()):
            for term in self._terms_of(part, weight, size):
                yield number, term

    def losses_and_terms(
        self, size: int | None
    ) -> Iterator[tuple[int, Callable[..., Any], Iterator[CurvatureTerm]]]:
        """Yield the number, the loss and the curvature terms of each batch, reading it once.

        Args:
            size: The largest number of samples in a term; None for whole batches.
        """
        for number, (part, weight) in enumerate(self._parts()):
            loss = self._term(self._loss_of(part), weight)
            yield number, loss, self._terms_of(part, weight, size)

    def _terms_of(self, part: Tensors, weight: float, size: int | None) -> Iterator[CurvatureTerm]:
        for piece, share in self._pieces(part, size):
            share = 1.0 if self._reduction == "sum" else share
            yield _weighted(self._term_of(piece, self._names), weight * share)

    def _pieces(self, part: Tensors, size: int | None) -> Iterator[tuple[Tensors, float]]:
        if size is None or not self._names:
            yield part, 1.0
            return
        count = len(part[self._names[0]])
        for start in range(0, count, size):
            stop = min(start + size, count)
            cut = {name: part[name][start:stop] for name in self._names}
            yield {**part, **cut}, (stop - start) / count


def _weighted(term: CurvatureTerm, weight: float) -> CurvatureTerm:
    def loss(outputs: Tensor, centre: Tensor) -> Tensor:
        return weight * term.loss(outputs, centre)

    return CurvatureTerm(term.outputs, term.data, loss, term.samples)
