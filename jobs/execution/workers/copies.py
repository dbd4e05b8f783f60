"""Copy blocks from a worker's device into shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.execution.workers.shared_buffers import SharedBuffers
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
    """Copies from a CUDA device on a separate stream, while the next block is computed.

    The shared memory is registered with the driver, which can then copy into it by itself.
    """

    def __init__(self, device: torch.device, buffers: SharedBuffers) -> None:
        self._buffers = buffers
        self._stream = torch.cuda.Stream(device)
        self._under_way: tuple[torch.cuda.Event, Tensor, Callable[[], None]] | None = None
        self._whole = torch.frombuffer(buffers.whole, dtype=torch.uint8)
        runtime: Any = torch.cuda.cudart()
        runtime.cudaHostRegister(self._whole.data_ptr(), self._whole.numel(), 0)

    def start(
        self, lines: Tensor, stored: np.dtype, buffer: int, announce: Callable[[], None]
    ) -> None:
        """Announce the previous copy, and begin this one."""
        self.finish()
        contiguous = ready_to_copy(lines, stored)
        place = torch.frombuffer(
            self._buffers.buffer(buffer), dtype=contiguous.dtype, count=contiguous.numel()
        ).view(contiguous.shape)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            place.copy_(contiguous, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(self._stream)
        # The allocator must not give its memory to the next block while it is read.
        contiguous.record_stream(self._stream)
        self._under_way = (copied, contiguous, announce)

    def finish(self) -> None:
        """Wait for the copy that is under way, and announce it."""
        if self._under_way is not None:
            copied, _, announce = self._under_way
            self._under_way = None
            copied.synchronize()
            announce()
