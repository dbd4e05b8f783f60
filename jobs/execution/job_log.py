"""Write what a job logs, tracebacks and the stacks of faults included, to the file of its run."""

from __future__ import annotations

import faulthandler
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO


@contextmanager
def logging_to(path: Path, *, owns_process: bool = True) -> Iterator[None]:
    """Write what the job logs to a file while the body runs.

    Args:
        path: The file, in a directory that exists.
        owns_process: Whether this program owns the process. Otherwise a caller who has the stacks
            of faults written elsewhere keeps that.
    """
    stacks = path.open("a")
    # The text of the user's exceptions may hold anything.
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    # A full disk ends the job with its own message, or not at all.
    handler.handleError = lambda record: None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("jobs")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    is_left = faulthandler.is_enabled() and not owns_process
    try:
        with stacks, nullcontext() if is_left else _stack_of_a_fault(stacks):
            yield
    except Exception as error:
        logger.debug("the job failed", exc_info=error)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        # What is in its buffer may not fit on the disk.
        with suppress(OSError):
            handler.close()


@contextmanager
def _stack_of_a_fault(file: TextIO) -> Iterator[None]:
    """Write the stack of a process that a signal such as SIGSEGV ends into a file."""
    # The processes of joblib would print it.
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable(file)
    try:
        yield
    finally:
        faulthandler.disable()
        if was_enabled and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
