"""Ctrl-C and SIGTERM: the job finishes and writes the current block, then stops.

A signal that a launcher handles itself is left to the launcher: under SLURM, submitit ignores
SIGTERM, so that a job computes until it is queued again or killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.machine.signal_handlers import SignalHandler, installed

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A signal to a process group arrives twice: directly, and forwarded by the supervisor.
_SECONDS_OF_ONE_SIGNAL = 0.2


class Interrupted(KeyboardInterrupt):
    """A signal asks the job to stop.

    Attributes:
        number: The number of the signal.
        exit_code: 128 plus this number, as in shells.
    """

    def __init__(self, number: int, text: str = "") -> None:
        """Create the exception for the signal of this number, with a text for the user."""
        super().__init__(*([text] if text else [number]))
        self.number = number
        self.exit_code = 128 + number

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows in place of a traceback."""
        return [f"KeyboardInterrupt: {self}"]


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Let SIGTERM raise an exception in the body, as Ctrl-C does."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handling(leave):
        yield


class StopRequest:
    """Records the signals that ask the job to stop.

    Attributes:
        received: The numbers of the signals that have arrived.
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.received: list[int] = []

    def is_asked(self) -> bool:
        """Return whether a signal has arrived."""
        return bool(self.received)

    def take(self) -> None:
        """Stop the job if a signal has arrived.

        Raises:
            Interrupted: A signal has arrived.
        """
        if self.received:
            raise Interrupted(self.received[0])


@contextmanager
def leaving_after_a_block() -> Iterator[StopRequest]:
    """Record a first signal while the body runs; let a second one end the body at once.

    Yields:
        The record, which the body checks between blocks.
    """
    request = StopRequest()
    first = 0.0

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if request.received and now - first > _SECONDS_OF_ONE_SIGNAL:
            raise Interrupted(number)
        if not request.received:
            request.received.append(number)
            first = now

    with _handling(remember):
        yield request


class _Handler:
    """A handler that this module installed, and may therefore replace."""

    def __init__(self, handler: SignalHandler) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._handler(number, frame)


def _is_ours_to_handle(number: int) -> bool:
    current = signal.getsignal(number)
    return current == signal.default_int_handler or isinstance(current, _Handler | signal.Handlers)


@contextmanager
def _handling(handler: SignalHandler) -> Iterator[None]:
    with (
        installed({number: _Handler(handler) for number in SIGNALS if _is_ours_to_handle(number)}),
        _none_ignored(),
    ):
        yield


@contextmanager
def _none_ignored() -> Iterator[None]:
    """Send a signal once more where Python ignored the exception that its handler raised.

    Python ignores what is raised in a callback of a weak reference and in ``__del__``, where a
    handler may run like anywhere else: the job would compute on.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return
    before = sys.unraisablehook

    def send_again(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, Interrupted):
            before(unraisable)
            return
        # From another thread, for the handler must not run before the callback has returned.
        again = threading.Timer(
            0.01, signal.pthread_kill, [main.ident, unraisable.exc_value.number]
        )
        again.daemon = True
        again.start()

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = before


_blocked_before_fork = threading.local()


def _block_signals() -> None:
    _blocked_before_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _blocked_before_fork.mask)


def _handle_signals_by_default() -> None:
    for number in SIGNALS:
        if isinstance(signal.getsignal(number), _Handler):
            signal.signal(number, signal.SIG_DFL)
    _unblock_signals()


# A process that the user's function forks does not inherit our handlers: a pool would wait forever
# for workers that only remember its SIGTERM. Signals wait until the child has the default ones, for
# Python forgets those that arrive between the fork and the first instruction of the child.
os.register_at_fork(
    before=_block_signals,
    after_in_parent=_unblock_signals,
    after_in_child=_handle_signals_by_default,
)
