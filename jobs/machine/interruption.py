"""Ctrl-C and SIGTERM: the block at hand is finished and written, then the job leaves.

A launcher that handles a signal itself keeps it: under SLURM, submitit lets SIGTERM pass, so that
a job computes on until it is queued again or killed. What it asks of SLURM then is kept from
dying of the answer.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TypeGuard

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_SignalHandler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """The job was asked to stop.

    Attributes:
        exit_code: 128 plus the number of the signal, as shells have it.
    """

    def __init__(self, number: int) -> None:
        """Take the number of the signal."""
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """While the body runs, SIGTERM ends it by an exception as Ctrl-C does."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handling(leave):
        yield


class Leave:
    """Whether the job was asked to stop.

    Attributes:
        received: The signals that have come.
    """

    def __init__(self) -> None:
        """None has come yet."""
        self.received: list[int] = []

    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return bool(self.received)

    def take(self) -> None:
        """Leave, if it was asked for.

        Raises:
            Interrupted: A signal has come.
        """
        if self.received:
            raise Interrupted(self.received[0])


@contextmanager
def leaving_after_a_block() -> Iterator[Leave]:
    """While the body runs, a first signal is only remembered, and a second one ends it at once.

    Yields:
        What to ask between blocks.
    """
    leave = Leave()

    def remember(number: int, frame: FrameType | None) -> None:
        if leave.received:
            raise Interrupted(number)
        leave.received.append(number)

    with _handling(remember):
        yield leave


@contextmanager
def queueing_again_unharmed() -> Iterator[None]:
    """While the body runs, SIGTERM does not reach what submitit starts to queue the job again.

    submitit answers its signal by ``scontrol requeue`` inside the job, and SLURM begins by sending
    SIGTERM to all processes of the job, the request among them. Where that dies before it has its
    answer, submitit takes the job, which is queued, for one that failed.
    """
    with _installed(
        {
            number: _without_sigterm(handler)
            for number in signal.valid_signals()
            if _is_of_submitit(handler := signal.getsignal(number)) and number not in SIGNALS
        }
    ):
        yield


def _is_of_submitit(handler: object) -> TypeGuard[_SignalHandler]:
    return getattr(handler, "__module__", "").split(".")[0] == "submitit"


def _without_sigterm(
    handler: _SignalHandler,
) -> _SignalHandler:
    def handle(number: int, frame: FrameType | None) -> None:
        # A process inherits what is blocked in the thread that starts it, but not handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            handler(number, frame)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return handle


class _Handler:
    """A handler of this module, which another of this module may replace."""

    def __init__(self, handler: _SignalHandler) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._handler(number, frame)


def _is_ours_to_handle(number: int) -> bool:
    current = signal.getsignal(number)
    return current == signal.default_int_handler or isinstance(current, _Handler | signal.Handlers)


@contextmanager
def _handling(handler: _SignalHandler) -> Iterator[None]:
    with _installed(
        {number: _Handler(handler) for number in SIGNALS if _is_ours_to_handle(number)}
    ):
        yield


@contextmanager
def _installed(
    handlers: Mapping[int, _SignalHandler],
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
