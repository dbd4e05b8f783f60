"""A loss over data as a sum over batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

from torch import Tensor


class BatchSum:
    """A function of the point: the weighted sum of the losses of all batches."""

    def __init__(self, batches: Callable[[], Iterator[tuple[Callable[..., Any], float]]]) -> None:
        """Describe the sum; nothing is loaded yet.

        Args:
            batches: Loads one batch after the other, and yields its loss as a function of the point
                with its weight.
        """
        self._batches = batches
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
