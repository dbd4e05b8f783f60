"""Copy blocks from a worker's device into shared memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from jobs.execution.workers.shared_buffers import SharedBuffers
from jobs.machine.accelerator import SideStream, lock_pages
from jobs.machine.device_copies import ready_to_copy
from jobs.streams.stream import to_numpy


class CopiesOnHost:
    """Copies blocks on the host into shared memory at once."""

    def __init__(self, buffers: SharedBuffers) -> None:
        self._buffers = buffers

    def start(
        self, lines: Tensor, stored: np.dtype, buffer: int, announce: Callable[[], None]
    ) -> None:
        """Copy lines into a buffer and announce it."""
        values = to_numpy(lines)
        place = np.frombuffer(self._buffers.buffer(buffer), stored, values.size)
        np.copyto(place.reshape(values.shape), values, casting="same_kind")
        announce()

    def finish(self) -> None:
        """Do nothing: every copy has finished."""


class CopiesFromDevice:
    """Copies from a device on a separate stream, while the next block is computed.

    The driver, where it can, copies into the shared memory by itself.
    """

    def __init__(self, device: torch.device, buffers: SharedBuffers) -> None:
        self._buffers = buffers
        self._device = device
        self._stream = SideStream(device)
        self._under_way: tuple[torch.Event, Callable[[], None]] | None = None
        self._whole = torch.frombuffer(buffers.whole, dtype=torch.uint8)
        lock_pages(self._whole, device)

    def start(
        self, lines: Tensor, stored: np.dtype, buffer: int, announce: Callable[[], None]
    ) -> None:
        """Announce the previous copy, and begin this one."""
        self.finish()
        contiguous = ready_to_copy(lines.to(self._device), stored)
        place = torch.frombuffer(
            self._buffers.buffer(buffer), dtype=contiguous.dtype, count=contiguous.numel()
        ).view(contiguous.shape)
        self._under_way = (self._stream.copy(contiguous, place), announce)

    def finish(self) -> None:
        """Wait for the copy that is under way, and announce it."""
        if self._under_way is not None:
            copied, announce = self._under_way
            self._under_way = None
            copied.synchronize()
            announce()
