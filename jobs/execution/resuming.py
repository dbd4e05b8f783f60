"""Continue what an earlier start began, if the function is still the one that began it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from jobs.errors import JobError
from jobs.execution.begun import Begun
from jobs.job import Job
from jobs.machine.activity import deaths_below
from jobs.records.attempts import other_versions, this_attempt
from jobs.records.storage import option_in_words
from jobs.verification.precision import allowed_error
from outputs import (
    ChangedFunctionError,
    Probes,
    Reference,
    ResultDescription,
    ResultWriter,
)

OTHER_VERSION = (
    "compressed products of an earlier start are of another version of the function or of the data "
    "that it reads, and are computed again"
)


def begins_anew(job: Job, overwrite: bool) -> bool:
    """Return whether a start discards what earlier ones left unfinished.

    A start that the supervisor or SLURM makes again continues instead: it is the same command.

    Args:
        job: The job.
        overwrite: The option `overwrite`.
    """
    is_again_by_slurm = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    return overwrite and not is_again_by_slurm and not deaths_below(job.paths.run)


def discard_unfinished(job: Job) -> None:
    """Remove what earlier starts of a job left unfinished; a finished result stays.

    Raises:
        BeingWrittenError: Another process writes it.
    """
    for path in (job.paths.result, job.paths.replacement):
        ResultWriter.discard(path)


def resumed(
    job: Job,
    target: Path,
    begun: Begun | None,
    description: ResultDescription,
    probes: Probes | None,
    note: Callable[[str], None],
) -> ResultWriter:
    """Open what an earlier start began, after comparing it with what the function gives now.

    Data that a function reads by itself are not part of the fingerprint. So the value, the probe
    products and each block of before must be those of today's function. What was begun by another
    one is begun again if it holds no block yet, or is only a part of a sparse matrix.

    Args:
        job: The job.
        target: The path of the finished file.
        begun: What was read of it before; None if it is of another process or job.
        description: What the function gives now.
        probes: What the blocks of before are compared with, whatever `verify` is.
        note: Called with a sentence if blocks are discarded.

    Raises:
        JobError: Blocks were computed by another version of the function or of its data.
    """
    if begun is not None:
        _require_same_storage(job, begun)
    reference = reference_of(job, description.value, probes)
    try:
        return ResultWriter.resume(
            target, description.fingerprint, reference=reference, fsync=job.fsync
        )
    except ChangedFunctionError as error:
        if error.lines and job.compressed is None and begun is not None:
            _refuse(begun, error)
        if error.lines:
            note(f"{OTHER_VERSION} ({error})")
    ResultWriter.discard(target)
    return ResultWriter.create(target, description, fsync=job.fsync)


def reference_of(job: Job, value: Mapping[str, np.ndarray], probes: Probes | None) -> Reference:
    """Return what the function of a job gives now, with the tolerance of rounding.

    Args:
        job: The job. Its own tolerance counts if it is larger: a smaller one is for blocks, and not
            for repetitions on other devices.
        value: The value of the function at the point, by name.
        probes: The probes and their products; None without.
    """
    rounding = allowed_error(replace(job, tolerance=None))
    # Where a derivative has no finite value one route may give NaN and another a number. Only a job
    # that checks its lines stops there, and leaves none of them.
    is_finite = job.verify == "probe"
    tolerance = max(rounding, job.tolerance or rounding)
    return Reference(value, probes, tolerance, is_finite, job.structure != "diagonal")


def earlier_lines(description: ResultDescription, writer: ResultWriter) -> list[range]:
    """Return the rows or columns that a file holds already.

    Args:
        description: The description of the file.
        writer: Its writer.
    """
    start = description.shard.start if description.shard else 0
    missing = [*writer.missing(), range(start + description.lines, start + description.lines)]
    found = []
    for each in missing:
        if start < each.start:
            found.append(range(start, each.start))
        start = each.stop
    return found


def with_this_attempt(
    job: Job,
    earlier: list[dict[str, Any]],
    description: ResultDescription,
    probes: Probes | None,
    writer: ResultWriter,
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Return all starts of a job, this one last.

    Args:
        job: The job.
        earlier: The starts before this one.
        description: What the function gives now.
        probes: What the blocks of before were compared with; None without.
        writer: The writer of what is missing.
        note: Called with a sentence if versions differ.

    Raises:
        JobError: Blocks were computed under other versions, and this start checks none of them.
    """
    before = description.lines - sum(map(len, writer.missing()))
    now: dict[str, Any] = this_attempt(job.source.packages) | {"lines_before": before}
    if not before:
        return [now]
    if differing := other_versions(earlier, now["versions"]):
        reference = reference_of(job, description.value, probes)
        if reference.line_probe(writer.axis, description.shard) is None:
            raise JobError(
                f"{writer.part} was begun under other versions ({differing}), and no other route "
                f"gives a product that its {before} {writer.axis} could be compared with: "
                "overwrite=true begins again"
            )
        note(
            f"begun under other versions ({differing}); every block of before agrees with a "
            "product of today"
        )
    return [*earlier, now]


def _require_same_storage(job: Job, begun: Begun) -> None:
    """Refuse to continue a file that is stored in another way than the options ask for.

    Raises:
        JobError: It is; the message names the option.
    """
    if job.compressed is not None:  # products are stored in one way, whatever the options
        return
    if other := begun.storage.other_option(job):
        option, before, now = other
        raise JobError(
            f"{option}: {begun.path} was begun with {before}, and this start asks for {now}: "
            f"continue with {option_in_words(option, before)}, or begin again with overwrite=true"
        )


def _refuse(begun: Begun, error: ChangedFunctionError) -> NoReturn:
    raise JobError(
        f"{begun.path}, begun {begun.created} and with {error.lines} of {begun.lines} {begun.axis} "
        f"computed, is of another version of the function or of the data that it reads: {error}; "
        "nothing is mixed: restore that version, or begin again with overwrite=true"
    ) from error
