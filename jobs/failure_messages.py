"""The message and the exit code for each way in which the command line can fail."""

from __future__ import annotations

import traceback
from pathlib import Path

from jobs.configuration.hydra_errors import (
    HYDRA_ERRORS,
    explain,
    refused_file,
    refused_option,
)
from jobs.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    JobError,
    resource_failure,
    text_of,
)
from jobs.machine.activity import Death
from jobs.machine.launchers import install_hint, lost_job
from jobs.paths import LOG
from jobs.reporting.sweeps import report_crashes


def failure_message(error: BaseException) -> tuple[str, int]:
    """Return what to print about an exception, and the exit code of the program.

    Args:
        error: The exception that ended the program.

    Returns:
        The text for standard error (empty if nothing is to be printed) and the exit code.
    """
    if isinstance(error, KeyboardInterrupt):
        text = "interrupted; what was computed is kept, and the same command resumes the job"
        return text, getattr(error, "exit_code", EXIT_INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return "", EXIT_BROKEN_PIPE
    text = _expected_failure(error) or _unexpected_failure(error)
    return f"error: {text}", getattr(error, "exit_code", EXIT_FAILED)


def _unexpected_failure(error: BaseException) -> str:
    """Return a message about what no user can cause: a fault of this program or of a library."""
    if isinstance(error, MemoryError):
        what = f" ({text_of(error)})" if text_of(error) else ""
        return (
            f"out of memory{what}; what was computed is kept, and the same command resumes the job"
        )
    text = next(iter(text_of(error).strip().splitlines()), "")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return (
        f"{type(error).__name__}{text and ': '}{text}{place}: a fault of this program or of a "
        "library that it uses; HYDRA_FULL_ERROR=1 prints the traceback"
    )


def _expected_failure(error: BaseException) -> str:
    if isinstance(error, JobError):
        return str(error)
    if isinstance(error, HYDRA_ERRORS):
        return explain(error) + install_hint(error)
    # Hydra creates the directory of the results before the job begins.
    if isinstance(error, OSError | MemoryError):
        return resource_failure(error)
    # Hydra's own assertions, files that it cannot parse, and a launcher's report of a job that
    # ended without a result.
    return refused_option(error) or refused_file(error) or _lost_job(error)


def _lost_job(error: BaseException) -> str:
    """Return what a launcher says of a job that ended without a result, and which jobs crashed."""
    if not (what := lost_job(error)):
        return ""
    crashes = report_crashes()
    return f"{crashes}. {what[0].upper()}{what[1:]}" if crashes else what


def death_message(death: Death) -> str:
    """Return what to print about a signal that ended the process of a job.

    Args:
        death: The end of the process, after which it is not started again.
    """
    if death.activity is None:
        return f"{death.reason}; what was computed before is kept"
    advice = death.activity.advice
    if death.is_for_memory:
        advice = "a smaller dtype or memory=... with a smaller value take less"
    elif death.signal != "SIGKILL":
        log = Path(death.activity.job).with_name(LOG)
        advice = "; ".join(filter(None, [f"the stack is in {log}", advice]))
    else:
        advice = "the same command resumes it"
    return f"{death.reason}; what was computed is kept; {advice}"
