"""Continue a job without the strategies that fail, and remember them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from jobs.errors import JobError, StrategyError
from jobs.execution.begun import Begun, read_begun
from jobs.functions.evaluation import evaluated
from jobs.functions.tracebacks import one_line
from jobs.job import Job
from jobs.machine.activity import deaths_of
from jobs.machine.measurement import release_memory
from jobs.records.announcements import advice_for, in_words, trying
from jobs.reporting.terminal import Display
from outputs import ResultWriter, part_path

_logger = logging.getLogger(__name__)
_Outcome = TypeVar("_Outcome")


def with_strategies_that_work(
    job: Job,
    target: Path,
    begun: Begun | None,
    display: Display,
    attempt: Callable[[Job, Begun | None], _Outcome],
) -> _Outcome:
    """Attempt a job; under ``auto``, again without each strategy that fails.

    Args:
        job: The job.
        target: The path of the file that is written. What a strategy has written that then fails
            the check is removed: it may be as wrong.
        begun: What an earlier start left of this file; None if there is nothing.
        display: Shows what is left out.
        attempt: Runs the job that it is given, which continues what was begun.

    Raises:
        JobError: The job cannot start or continue, or no strategy is left.
    """
    job = _remembering(job, begun, display)
    while True:
        try:
            return attempt(job, begun)
        except StrategyError as error:
            _logger.info("strategy %s has failed", error.strategy, exc_info=error)
            reason = _reason(job, error)
            if error.is_wrong:
                discard(target, job.fingerprint)
            job = replace(job, excluded={**job.excluded, error.strategy: reason})
            display.say(f"note: {in_words(error.strategy, reason)}")
        # Here the error, and with it the frames that hold memory, has been released.
        release_memory()
        begun = read_begun(job, target)


def _reason(job: Job, error: StrategyError) -> str:
    """Return why a strategy is left out, in one line.

    Raises:
        JobError: The strategy was asked for, or it is the function that fails.
    """
    if not error.is_wrong and _is_failing(job):
        raise JobError(str(error)) from error
    if job.strategy != "auto":
        raise JobError(f"{error}\n{advice_for(job)}; what was computed before is kept") from error
    return one_line(error)


def _is_failing(job: Job) -> bool:
    """Return whether the function fails without any derivative as well."""
    trying(job, "the function was evaluated")
    try:
        evaluated(job.function.function, job.first_point, job.seed)
    # A user's function may raise anything.
    except (Exception, SystemExit):
        return True
    return False


def _remembering(job: Job, begun: Begun | None, display: Display) -> Job:
    """Return a job without what ended earlier processes, or was left out of its unfinished result.

    What this program has not yet said is shown.
    """
    found = {} if begun is None else dict(begun.excluded)
    new = list(found)
    deaths = deaths_of(str(job.paths.status))
    for death in deaths:
        if death.activity is not None and death.activity.leaves_out and not death.is_for_memory:
            found[death.activity.leaves_out] = death.reason
            new = [death.activity.leaves_out]
    for name in new:
        display.say(f"note: {in_words(name, found[name])}")
    if deaths:
        # Where the function itself ends the process, no other strategy helps.
        _is_failing(job)
    return replace(job, excluded={**job.excluded, **found})


def notes_of(job: Job) -> list[str]:
    """Return what a job does without, and why, as sentences."""
    return [in_words(name, reason) for name, reason in job.excluded.items()]


def discard(target: Path, fingerprint: str) -> None:
    """Remove the unfinished result of a job, unless another process writes it.

    Args:
        target: The path of the finished result.
        fingerprint: The fingerprint of the job.

    Raises:
        ResultError: Another process writes it, or it is that of another job.
    """
    part = part_path(target)
    if part.exists():
        with ResultWriter.resume(target, fingerprint):
            part.unlink()
