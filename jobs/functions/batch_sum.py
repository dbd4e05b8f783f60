"""A loss over data as a sum over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor


class BatchSum:
    """A function of the point: the sum of the losses of all batches.

    With ``mean``, a batch is weighted by its share of the samples: the sum is the mean over all.
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
            batch: Loads a slice of the samples and returns their loss as a function of the point.
            samples: The number of samples.
            batch_size: The number of samples in a batch.
            reduction: ``mean`` or ``sum``: how the loss of a batch combines its samples.
        """
        self._batch = batch
        self._samples = samples
        self._batch_size = batch_size
        self._reduction = reduction

    def __call__(self, *point: Tensor) -> Any:
        """Return the sum, computed batch by batch."""
        return reduce(torch.add, (term(*point) for term in self.terms()))

    def terms(self) -> Iterator[Callable[..., Any]]:
        """Yield the terms of the sum; the data of each are loaded when it is yielded."""
        for start in range(0, self._samples, self._batch_size):
            stop = min(start + self._batch_size, self._samples)
            loss = self._batch(slice(start, stop))
            weight = 1.0 if self._reduction == "sum" else (stop - start) / self._samples
            yield _weighted(loss, weight)


def _weighted(loss: Callable[..., Any], weight: float) -> Callable[..., Any]:
    return lambda *point: weight * loss(*point)
