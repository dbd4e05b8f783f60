"""Announce what a job tries, so that it can do without what ends its process."""

from __future__ import annotations

from jobs.job import Job
from jobs.machine.activity import Activity, announce
from jobs.operations import OPERATIONS
from jobs.strategies import strategies_of

DIFFERENCES = "differences"
DETECTION = "detection"


def route_of_check(strategy: str) -> str:
    """Return the name in `Job.excluded` of a strategy as a route of the check."""
    return f"route {strategy}"


def trying_strategy(job: Job, strategy: str, doing: str, chunk_size: int | None = None) -> None:
    """Announce that a strategy computes; under ``auto`` the job can do without it.

    Args:
        job: The job.
        strategy: The name of the strategy.
        doing: What it does, in words that follow its name.
        chunk_size: The number of rows or columns that are computed at once.
    """
    is_auto = job.strategy == "auto"
    _announce(
        job,
        f"strategy {strategy} {doing}",
        strategy if is_auto else "",
        "" if is_auto else advice_for(job),
        chunk_size,
    )


def trying_route(job: Job, strategy: str) -> None:
    """Announce that a strategy computes a product for the check, which can do without it."""
    route = route_of_check(strategy)
    _announce(job, f"{strategy} computed a product for the check", route)


def trying_differences(job: Job) -> None:
    """Announce that the derivative is compared with differences of the function."""
    _announce(job, "finite differences of the function were taken", DIFFERENCES)


def trying_detection(job: Job) -> None:
    """Announce that the sparsity pattern is detected; without it the job computes densely."""
    _announce(job, "the sparsity pattern was detected", DETECTION)


def trying(job: Job, doing: str, advice: str = "", chunk_size: int | None = None) -> None:
    """Announce what the job cannot do without.

    Args:
        job: The job.
        doing: What it does, in words that follow "while".
        advice: What the user may try, should this end the process.
        chunk_size: The number of rows or columns that are computed at once.
    """
    _announce(job, doing, "", advice, chunk_size)


def advice_for(job: Job) -> str:
    """Return which strategies the user may try in place of the one that was asked for."""
    known = strategies_of(is_from_left=OPERATIONS[job.operation].is_from_left)
    others = [each for each in known if each != job.strategy]
    return (
        f"strategy={job.strategy} was asked for and is not replaced; valid are also "
        f"{', '.join(others)}, and auto, which leaves out what fails"
    )


def _announce(
    job: Job, doing: str, leaves_out: str, advice: str = "", chunk_size: int | None = None
) -> None:
    announce(Activity(str(job.paths.status), doing, leaves_out, advice, chunk_size))


def in_words(name: str, reason: str) -> str:
    """Return what a job does without, and why, as a sentence for its record.

    Args:
        name: A key of `Job.excluded`.
        reason: Its value.
    """
    if name == DIFFERENCES:
        return f"finite differences are left out: {reason}"
    if name == DETECTION:
        return f"the sparsity pattern is not detected: {reason}"
    if name.startswith("route "):
        return f"the check does without {name.removeprefix('route ')}: {reason}"
    return f"strategy {name} is left out: {reason}"
