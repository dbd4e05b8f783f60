"""Time work on a CUDA device by its events."""

from __future__ import annotations

from collections import deque

import torch

AHEAD = 4
"""How many chunks may be handed to the device before the first of them is waited for."""


class CudaClock:
    """Events of the device: from its being idle to its having done everything."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.start()

    def start(self) -> None:
        """Begin when the device is idle."""
        torch.cuda.synchronize(self._device)
        self._marks: deque[torch.cuda.Event] = deque()
        self._started = self._mark()

    def is_within(self, seconds: float) -> bool:
        """Whether there is time for more, as seen some chunks behind.

        The device need not become idle for the answer, and the host does not hand over chunks
        for a time much longer than that given.
        """
        self._marks.append(self._mark())
        if len(self._marks) <= AHEAD:
            return True
        behind = self._marks.popleft()
        behind.synchronize()
        return self._started.elapsed_time(behind) / 1000 < seconds

    def seconds(self) -> float:
        """The time until the device has done everything."""
        end = self._mark()
        torch.cuda.synchronize(self._device)
        return self._started.elapsed_time(end) / 1000

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
