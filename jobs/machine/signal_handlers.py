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
    # Python lets the main thread alone handle signals; elsewhere the launcher's rules hold.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
