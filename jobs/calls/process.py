"""Run a job inside a process that belongs to the caller, and leave it as it was."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch._C._functorch import (  # pyright: ignore[reportMissingImports]
    peek_interpreter_stack,
)
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from jobs.errors import ConfigurationError, JobError
from jobs.machine.accelerator import same_random_numbers
from jobs.machine.interruption import Interrupted

_RESUMES = "interrupted; what was computed is kept, and the same call resumes the job"
_told: set[str] = set()


class _Turn:
    """Lets one call at a time compute in this process.

    A job seeds torch's generators before each evaluation, sets filters of warnings and writes a
    log: two at once would disturb each other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None

    @contextmanager
    def taken(self, say: Callable[[str], None]) -> Iterator[None]:
        """Wait for the end of other calls, and hold the turn while the body runs.

        Raises:
            JobError: The call comes from inside of another one, which would wait forever.
        """
        if self._thread == threading.get_ident():
            raise JobError(
                "jobs.compute is called by a function that jobs.compute evaluates; a job cannot be "
                "a part of another one"
            )
        if not self._lock.acquire(blocking=False):
            say("note: another call computes in this process; this one begins when it has ended")
            self._lock.acquire()
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None
            self._lock.release()


_turn = _Turn()


def _begin_anew() -> None:
    global _turn
    _turn = _Turn()


# Another thread may hold the turn while this one forks.
os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def undisturbed(say: Callable[[str], None]) -> Iterator[None]:
    """Run a job while the body runs; restore what the process had before.

    Restored are the states of torch's generators, the modes of autograd, the filters of warnings,
    the search path of imports, and the logger of this program.

    Args:
        say: Shows a sentence.

    Raises:
        ConfigurationError: A setting of torch changes what the function computes.
        Interrupted: The user has stopped the job; what was computed is kept.
    """
    with ExitStack() as restored:
        restored.enter_context(_turn.taken(say))
        # Only here: within another call its own settings would be seen.
        _require_default_settings()
        restored.enter_context(same_random_numbers())
        restored.enter_context(torch.inference_mode(False))
        restored.enter_context(torch.enable_grad())
        restored.enter_context(warnings.catch_warnings())
        restored.enter_context(_own_logger())
        restored.enter_context(_same_search_path())
        restored.enter_context(_interruptible(say))
        yield


def _require_default_settings() -> None:
    modes = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
    # That of the default device is looked at below.
    others = [type(each).__name__ for each in modes if not isinstance(each, DeviceContext)]
    if peek_interpreter_stack() is not None:
        others.append("a transformation of torch.func")
    if others:
        raise ConfigurationError(
            f"the call is made within {' and '.join(others)}, which changes what torch computes "
            "and is no part of the function; valid is the same inside of the function"
        )
    device = torch.get_default_device()
    if device.type != "cpu":
        raise ConfigurationError(
            f"torch's default device is {device}; the option devices= chooses where a job "
            "computes, and the default must stay as it is"
        )
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise ConfigurationError(
            "the call is made within torch.autocast, which changes the values of the function and "
            "is no part of it; valid is an autocast inside of the function"
        )


@contextmanager
def _own_logger() -> Iterator[None]:
    """Keep what the job logs in its own file: the caller's handlers would print all of it."""
    logger = logging.getLogger("jobs")
    before = logger.propagate
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = before


@contextmanager
def _same_search_path() -> Iterator[None]:
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _interruptible(say: Callable[[str], None]) -> Iterator[None]:
    """Say how the job is interrupted, and end the process where a signal would have done so.

    Raises:
        Interrupted: A signal has stopped the job.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main and "thread" not in _told:
        _told.add("thread")
        say(
            "note: this thread is not the main one, to which signals go: Ctrl-C does not end the "
            "job after a block; if the process ends, the same call resumes"
        )
    try:
        yield
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        if number == signal.SIGTERM and is_main:
            # The job has only delayed it.
            os.kill(os.getpid(), signal.SIGTERM)
        raise Interrupted(number, _RESUMES) from error
