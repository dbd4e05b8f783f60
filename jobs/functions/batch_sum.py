"""A loss over data as a sum over batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Halves:
    """What tells a loss that is a mean over samples from one that is a sum.

    Attributes:
        terms: The loss of a batch, of its first and of its second half, as functions of the point.
        counts: The numbers of samples of the halves.
        reduction: ``mean`` or ``sum``: what the loss is said to be.
    """

    terms: tuple[Callable[..., Any], ...]
    counts: tuple[int, int]
    reduction: str


def halves_of(
    part: Mapping[str, Tensor],
    names: Sequence[str],
    loss_of: Callable[[Mapping[str, Tensor]], Callable[..., Any]],
    reduction: str,
) -> Halves | None:
    """Return the loss of a batch, and of its halves; None of less than two samples.

    Args:
        part: The constants of the batch.
        names: Those of them that have a leading dimension over samples.
        loss_of: Returns the loss of a batch as a function of the point.
        reduction: ``mean`` or ``sum``.
    """
    count = len(part[names[0]]) if names else 0
    if count < 2:
        return None
    pieces = (slice(0, count // 2), slice(count // 2, count))
    cut = ({**part, **{name: part[name][piece] for name in names}} for piece in pieces)
    terms = (loss_of(part), *map(loss_of, cut))
    return Halves(terms, (count // 2, count - count // 2), reduction)


class BatchSum:
    """A function of the point: the weighted sum of the losses of all batches."""

    def __init__(
        self,
        batches: Callable[[], Iterator[tuple[Callable[..., Any], float]]],
        halves: Callable[[], Halves | None] = lambda: None,
    ) -> None:
        """Describe the sum; nothing is loaded yet.

        Args:
            batches: Loads one batch after the other, and yields its loss as a function of the point
                with its weight.
            halves: Loads the first batch in halves, if its loss is to be compared with theirs.
        """
        self._batches = batches
        self._halves = halves
        self._change: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda term: term

    def __call__(self, *point: Tensor) -> Any:
        """Return the sum, computed batch by batch."""
        return reduce(added, (term(*point) for term in self.terms()))

    def mapped(self, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> BatchSum:
        """Return the sum of changed terms."""
        changed = copy.copy(self)
        changed._change = lambda term: change(self._change(term))
        return changed

    def terms(self) -> Iterator[Callable[..., Any]]:
        """Yield the terms of the sum; the data of each are loaded when it is yielded."""
        for loss, weight in self._batches():
            yield self._term(loss, weight)

    def _term(self, loss: Callable[..., Any], weight: float) -> Callable[..., Any]:
        return self._change(_weighted(loss, weight))

    def halves(self) -> Halves | None:
        """Return the loss of the first batch and of its halves, if they are to be compared."""
        found = self._halves()
        return found and replace(found, terms=tuple(map(self._change, found.terms)))

    def seed_of(self, seed: int, number: int) -> int:
        """Return the seed of torch's generators for a term, from that of the sum."""
        return seed + number

    def sample(self) -> Callable[..., Any]:
        """Return a function whose arithmetic is that of all terms."""
        return next(iter(self.terms()))


def _weighted(loss: Callable[..., Any], weight: float) -> Callable[..., Any]:
    return lambda *point: weight * loss(*point)


def added(first: Any, second: Any) -> Any:
    """Return the sum of two equally nested values."""
    if isinstance(first, dict):
        return {key: added(first[key], second[key]) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(added(a, b) for a, b in zip(first, second, strict=True))
    return first + second
