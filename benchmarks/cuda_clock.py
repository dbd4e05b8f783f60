"""Time work on a CUDA device by CUDA events."""

from __future__ import annotations

from collections import deque

import torch

AHEAD = 4
"""How many chunks may be queued on the device before the host waits for the first of them."""


class CudaClock:
    """A clock that runs from the moment the device is idle until it has done all work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.start()

    def start(self) -> None:
        """Start the clock when the device is idle."""
        torch.cuda.synchronize(self._device)
        self._marks: deque[torch.cuda.Event] = deque()
        self._started = self._mark()

    def is_within(self, seconds: float) -> bool:
        """Return whether less than this time has passed, as of some chunks earlier.

        The device need not become idle for the answer, and the host does not queue chunks for much
        longer than the given time.
        """
        self._marks.append(self._mark())
        if len(self._marks) <= AHEAD:
            return True
        behind = self._marks.popleft()
        behind.synchronize()
        return self._started.elapsed_time(behind) / 1000 < seconds

    def seconds(self) -> float:
        """Return the time until the device has done all work."""
        end = self._mark()
        torch.cuda.synchronize(self._device)
        return self._started.elapsed_time(end) / 1000

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
