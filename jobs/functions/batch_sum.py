"""A loss over data as a sum over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor


class BatchSum:
    """A function of the point: the sum of the losses of all batches.

    With ``mean``, a batch counts as much as it has samples, so that the sum is the mean over all.
    """

    def __init__(
        self,
        batch: Callable[[slice], Callable[..., Any]],
        samples: int,
        batch_size: int,
        reduction: str,
    ) -> None:
        """Describe the sum; nothing is loaded yet.

        Args:
            batch: Loads some of the samples and returns the loss of these, as a function of the
                point.
            samples: How many samples there are.
            batch_size: How many of them make a batch.
            reduction: ``mean`` or ``sum``: what the loss of a batch is.
        """
        self._batch = batch
        self._samples = samples
        self._batch_size = batch_size
        self._reduction = reduction

    def __call__(self, *point: Tensor) -> Any:
        """The sum, batch by batch."""
        return reduce(torch.add, (term(*point) for term in self.terms()))

    def terms(self) -> Iterator[Callable[..., Any]]:
        """The terms of the sum one after the other, each loaded when it is asked for."""
        for start in range(0, self._samples, self._batch_size):
            stop = min(start + self._batch_size, self._samples)
            loss = self._batch(slice(start, stop))
            weight = 1.0 if self._reduction == "sum" else (stop - start) / self._samples
            yield _weighted(loss, weight)


def _weighted(loss: Callable[..., Any], weight: float) -> Callable[..., Any]:
    return lambda *point: weight * loss(*point)
