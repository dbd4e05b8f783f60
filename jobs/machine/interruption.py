"""Ctrl-C and SIGTERM: the block at hand is finished and written, then the job leaves.

A launcher that handles a signal itself keeps it: under SLURM, submitit lets SIGTERM pass, so that
a job computes on until it is queued again or killed. What it asks of SLURM then is kept from
dying of the answer.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.machine.signal_handlers import SignalHandler, installed

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


class _Handler:
    """A handler of this module, which another of this module may replace."""

    def __init__(self, handler: SignalHandler) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._handler(number, frame)


def _is_ours_to_handle(number: int) -> bool:
    current = signal.getsignal(number)
    return current == signal.default_int_handler or isinstance(current, _Handler | signal.Handlers)


@contextmanager
def _handling(handler: SignalHandler) -> Iterator[None]:
    with installed({number: _Handler(handler) for number in SIGNALS if _is_ours_to_handle(number)}):
        yield
