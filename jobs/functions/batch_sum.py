"""A loss over data as a sum over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import torch
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

    def __call__(self, *point: Tensor) -> Any:
        """Return the sum, computed batch by batch."""
        return reduce(torch.add, (term(*point) for term in self.terms()))

    def terms(self) -> Iterator[Callable[..., Any]]:
        """Yield the terms of the sum; the data of each are loaded when it is yielded."""
        for loss, weight in self._batches():
            yield _weighted(loss, weight)


def _weighted(loss: Callable[..., Any], weight: float) -> Callable[..., Any]:
    return lambda *point: weight * loss(*point)
