"""Report failures of a job in its status file and as messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import JobError, text_of
from jobs.machine.launchers import is_of_launcher
from jobs.records.status_file import StatusFile
from outputs import BeingWrittenError, ResultError


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn failures of writing into a `JobError` that says how to resume."""
    try:
        yield
    except ResultError as error:
        raise JobError(str(error)) from error
    except MemoryError as error:
        raise JobError(
            "out of memory while blocks were written; what was computed is kept, and the same "
            "command resumes: with a smaller memory=... or where more is free"
        ) from error


@contextmanager
def reported_failures(status: StatusFile) -> Iterator[None]:
    """Record in the status file how a job failed, unless another process runs it."""
    try:
        yield
    except BeingWrittenError:
        raise
    except KeyboardInterrupt:
        status.update(state="interrupted", message="interrupted")
        raise
    except BaseException as error:
        if is_of_launcher(error):
            status.update(state="interrupted", message="ended by the launcher")
            raise
        status.update(state="failed", message=text_of(error) or type(error).__name__)
        raise
