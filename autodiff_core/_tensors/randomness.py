"""Random numbers that are the same in every evaluation of a function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class ReplayedRandomness:
    """The state of torch's default generators at one moment, to be replayed.

    A strategy that evaluates the function again for each chunk of vectors would draw a new dropout
    mask each time, and the columns of the matrix would belong to different functions. Under
    `replayed()` every evaluation draws the random numbers of the first one, and the caller's
    generators are restored afterwards. Generators that the function itself creates are not
    replayed.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Store the state of the generators of the CPU and of the tensors' CUDA devices."""
        self._host = torch.get_rng_state()
        self._cuda = {
            index: torch.cuda.get_rng_state(index)
            for index in sorted({tensor.device.index for tensor in tensors if tensor.is_cuda})
        }

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Run the body with the stored state; restore the current state at the end."""
        with torch.random.fork_rng(devices=list(self._cuda)):
            torch.set_rng_state(self._host)
            for index, state in self._cuda.items():
                torch.cuda.set_rng_state(state, index)
            yield
