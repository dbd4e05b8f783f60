"""Random numbers that are the same in every evaluation of a function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

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
        """Store the state of the generators of the CPU and of the devices in use.

        Args:
            tensors: The point; its devices are in use, and so are others with memory of this
                process, where a function may keep a part of its parameters.
        """
        self._states = _states({tensor.device for tensor in tensors} | _with_memory())

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Run the body with the stored state; restore the current state at the end."""
        before = _states(self._states)
        _restore(self._states)
        try:
            yield
        finally:
            _restore(before)


def _with_memory() -> set[torch.device]:
    """Return the accelerators on which this process has tensors, as far as torch counts them."""
    kind = torch.accelerator.current_accelerator()
    if kind is None:
        return set()
    found = set()
    with suppress(RuntimeError, NotImplementedError):  # MPS, and backends without statistics
        for index in range(torch.accelerator.device_count()):
            if torch.accelerator.memory_allocated(index):
                found.add(torch.device(kind.type, index))
    return found


def _states(devices: Iterable[torch.device]) -> dict[torch.device, Tensor]:
    states = {torch.device("cpu"): torch.get_rng_state()}
    for place in devices:
        if place.type not in ("cpu", "meta"):
            states[place] = torch.get_device_module(place).get_rng_state(place)
    return states


def _restore(states: dict[torch.device, Tensor]) -> None:
    for place, state in states.items():
        if place.type == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(place).set_rng_state(state, place)
