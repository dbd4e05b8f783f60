"""Install signal handlers and restore the previous ones."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

SignalHandler = Callable[[int, FrameType | None], None]


@contextmanager
def installed(
    handlers: Mapping[int, SignalHandler],
) -> Iterator[None]:
    """Install signal handlers while the body runs; do nothing outside of the main thread.

    Args:
        handlers: Number of a signal to its handler.
    """
    # Python handles signals in the main thread only. In other threads the launcher's handlers stay.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
