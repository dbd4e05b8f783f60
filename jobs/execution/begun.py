"""What an earlier start of a job left unfinished, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.errors import JobError
from jobs.job import Job
from jobs.records.attempts import attempt_of_provenance
from jobs.records.status_file import JobStatus
from jobs.records.storage import Storage
from jobs.strategies import STRATEGIES
from outputs import Result, ResultError, ResultWriter, TruncatedResultError, open_result, part_path

SEPARATOR = ", "
"""Between the strategies of a result that several have computed."""


@dataclass(frozen=True)
class Begun:
    """An unfinished result of the same job.

    Attributes:
        path: The unfinished file.
        strategies: The strategies that computed what there is, the last one last.
        axis: The axis of its blocks.
        lines: The number of its lines.
        missing: The number of lines that are missing.
        storage: How its entries are stored.
        has_products: Whether it has products of its matrix with random vectors.
        created: When it was begun.
        attempts: The starts that wrote it, as far as they are known.
        excluded: What was left out of it, by name, with the reasons.
    """

    path: Path
    strategies: tuple[str, ...]
    axis: str
    lines: int
    missing: int
    storage: Storage
    has_products: bool
    created: str = ""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    excluded: Mapping[str, str] = field(default_factory=dict)


def read_begun(job: Job, target: Path) -> Begun | None:
    """Read what an earlier start left unfinished; None if there is nothing of this job.

    Args:
        job: The job.
        target: The path of the finished file.

    Raises:
        JobError: The unfinished file cannot be read, or is damaged.
        TruncatedResultError: Its end is missing.
    """
    if not part_path(target).exists():
        return None
    try:
        with open_result(target, allow_partial=True) as found:
            if found.fingerprint != job.fingerprint:
                return None  # resuming says so
            found.require_sound_creation()
            return _begun(job, found)
    except TruncatedResultError:
        raise
    except ResultError as error:
        raise JobError(f"{error} Remove it, or begin again with overwrite=true") from error


def begun_or_discarded(job: Job, target: Path, note: Callable[[str], None]) -> Begun | None:
    """Return what `read_begun` returns, and remove a file of which no block can be checked.

    Its end is missing, or it is of a diagonal and has no products of the whole matrix, which would
    show that it is still the same one.

    Args:
        job: The job.
        target: The path of the finished file.
        note: Called with a sentence if it is removed.

    Raises:
        JobError: The unfinished file cannot be read, or is damaged.
    """
    try:
        begun = read_begun(job, target)
    except TruncatedResultError as error:
        ResultWriter.discard(target)
        note(f"note: {error} It is begun again, because no block of it can be checked")
        return None
    if begun is not None and job.structure == "diagonal" and not begun.has_products:
        ResultWriter.discard(target)
        note(
            f"note: {begun.path} has no product of the matrix that it could be compared with, and "
            "is begun again"
        )
        return None
    return begun


def _begun(job: Job, found: Result) -> Begun:
    # No digest covers the strategy before the result is finished.
    strategies = tuple(found.strategy.split(SEPARATOR))
    if not set(strategies) <= set(STRATEGIES):
        raise JobError(
            f"{found.path} is damaged: its strategy is {found.strategy!r}. Remove the file; "
            "the same command then computes it anew"
        )
    provenance = found.provenance
    status = JobStatus.read(job.paths.status).other
    excluded = status.get("excluded")
    return Begun(
        path=found.path,
        strategies=strategies,
        axis=found.axis,
        lines=found.axis.lines(found.matrix_shape),
        missing=int((~found.mask).sum()),
        storage=Storage.of_result(found),
        has_products=found.probes is not None,
        created=str(provenance.get("created", "at an unknown time")),
        attempts=_attempts(job, status) or [attempt_of_provenance(provenance)],
        excluded={k: str(v) for k, v in excluded.items()} if isinstance(excluded, dict) else {},
    )


def _attempts(job: Job, status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the starts that a status file lists, if it is of this job and they are valid."""
    found = status.get("attempts")
    if status.get("fingerprint") != job.fingerprint or not isinstance(found, list):
        return []
    return found if all(map(_is_attempt, found)) else []


def _is_attempt(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and isinstance(found.get("versions"), dict)
        and type(found.get("lines_before")) is int
    )
