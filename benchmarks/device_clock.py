"""Time work on a device by its events."""

from __future__ import annotations

from collections import deque

import torch

AHEAD = 4
"""How many chunks may be queued on the device before the host waits for the first of them."""


class DeviceClock:
    """A clock that runs from the moment the device is idle until it has done all work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.start()

    def start(self) -> None:
        """Start the clock when the device is idle."""
        torch.accelerator.synchronize(self._device)
        self._marks: deque[torch.Event] = deque()
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
        torch.accelerator.synchronize(self._device)
        return self._started.elapsed_time(end) / 1000

    def _mark(self) -> torch.Event:
        event = torch.Event(self._device, enable_timing=True)
        event.record(torch.accelerator.current_stream(self._device))
        return event
