"""Failures inside the user's function, told as one message that points into their file."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import autodiff_core
import outputs
from jobs.errors import JobError, OutOfMemoryError, is_of_launcher
from jobs.functions import LoadedFunction

_logger = logging.getLogger(__name__)
_OURS = (
    str(Path(__file__).parent) + os.sep,
    *(
        str(Path(module.__file__ or "").parent) + os.sep
        for module in (torch, autodiff_core, outputs)
    ),
)


@contextmanager
def explaining_failures(function: LoadedFunction) -> Iterator[None]:
    """Turn an exception inside the function, or about it, into a `JobError`.

    The traceback goes to the log of the job.

    Raises:
        OutOfMemoryError: An allocation failed.
        JobError: Anything else but a `JobError`, or an exception of the launcher, was raised
            inside.
    """
    try:
        yield
    except JobError:
        raise
    # A user's function may raise anything, and may end the program.
    except (Exception, SystemExit) as error:
        if is_of_launcher(error):
            raise
        _logger.debug("the computation failed", exc_info=error)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if autodiff_core.is_out_of_memory(error):
            raise OutOfMemoryError(lines[0]) from error
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith(_OURS) and Path(frame.filename).exists()
        ]
        if not frames:
            raise JobError(f"function={function.reference}: {lines[0]}") from error
        last = frames[-1]
        raise JobError(
            f"function={function.reference}: {type(error).__name__} at {last.filename}:"
            f"{last.lineno} in {last.name}: {lines[0]}"
        ) from error
