"""Continue what an earlier start began, if the function is still the one that began it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml

from jobs.errors import JobError
from jobs.job import Job
from jobs.machine.activity import deaths_below
from jobs.records.attempts import attempt_of_provenance, other_versions, this_attempt
from jobs.records.status_file import JobStatus
from jobs.verification.precision import allowed_error
from outputs import (
    ChangedFunctionError,
    Probes,
    Reference,
    ResultDescription,
    ResultError,
    ResultWriter,
    TruncatedResultError,
    open_result,
    part_path,
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


def discard_truncated(target: Path, note: Callable[[str], None]) -> None:
    """Remove an unfinished file whose end is missing: no block of it can be checked.

    Args:
        target: The path of the finished file.
        note: Called with a sentence if it is removed.

    Raises:
        JobError: The unfinished file cannot be read.
    """
    if not part_path(target).exists():
        return
    try:
        open_result(target, allow_partial=True).close()
    except TruncatedResultError as error:
        ResultWriter.discard(target)
        note(f"note: {error} It is begun again, because no block of it can be checked")
    except ResultError as error:
        raise JobError(f"{error} Remove it, or begin again with overwrite=true") from error


def resumed(
    job: Job, target: Path, description: ResultDescription, note: Callable[[str], None]
) -> ResultWriter:
    """Open what an earlier start began, after comparing it with what the function gives now.

    Data that a function reads by itself are not part of the fingerprint. So the value, the probe
    products and each block of before must be those of today's function. What was begun by another
    one is begun again if it holds no block yet, or is only a part of a sparse matrix.

    Args:
        job: The job.
        target: The path of the finished file.
        description: What the function gives now, with the probes.
        note: Called with a sentence if blocks are discarded.

    Raises:
        JobError: Blocks were computed by another version of the function or of its data.
    """
    _require_same_storage(job, target, description)
    reference = reference_of(job, description.value, description.probes)
    try:
        return ResultWriter.resume(
            target, description.fingerprint, reference=reference, fsync=job.fsync
        )
    except ChangedFunctionError as error:
        if error.lines and job.compressed is None:
            _refuse(target, error)
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
    return Reference(value, probes, max(rounding, job.tolerance or rounding))


def earlier_attempts(job: Job, target: Path) -> list[dict[str, Any]]:
    """Return the starts that wrote the unfinished file of a job, as far as they are known."""
    if not part_path(target).exists():
        return []
    kept = JobStatus.read(job.paths.status).other
    if kept.get("fingerprint") == job.fingerprint and kept.get("attempts"):
        return list(kept["attempts"])
    with open_result(target, allow_partial=True) as begun:
        return [attempt_of_provenance(begun.provenance)]


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
    writer: ResultWriter,
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Return all starts of a job, this one last.

    Args:
        job: The job.
        earlier: The starts before this one.
        description: What the function gives now, with the probes.
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
        reference = reference_of(job, description.value, description.probes)
        if reference.line_probe(writer.axis, description.shard) is None:
            raise JobError(
                f"{writer.part} was begun under other versions ({differing}), and verify="
                f"{job.verify} compares none of its {before} {writer.axis} with today's function: "
                "verify=probe does; overwrite=true begins again"
            )
        note(
            f"begun under other versions ({differing}); every block of before agrees with a "
            "product of today"
        )
    return [*earlier, now]


def _require_same_storage(job: Job, target: Path, description: ResultDescription) -> None:
    """Refuse to continue a file that is stored in another way than the options ask for.

    Raises:
        JobError: It is; the message names the option.
    """
    if job.compressed is not None:  # products are stored in one way, whatever the options
        return
    with open_result(target, allow_partial=True) as begun:
        if begun.fingerprint != job.fingerprint:
            return  # resuming says so
        begun_tile = yaml.safe_load(begun.configuration).get("output", {}).get("tile")
        stored = {
            "dtype": (str(begun.dtype), str(np.dtype(description.dtype))),
            "compression": (begun.compression, description.compression),
            "tile": tuple("auto" if t is None else str([*t]) for t in (begun_tile, job.tile)),
        }
    for name, (before, now) in stored.items():
        if before != now:
            raise JobError(
                f"output.{name}: {part_path(target)} was begun with {before}, and this start asks "
                f"for {now}: continue with output.{name}={'null' if before == 'auto' else before}, "
                "or begin again with overwrite=true"
            )


def _refuse(target: Path, error: ChangedFunctionError) -> NoReturn:
    with open_result(target, allow_partial=True) as begun:
        created = begun.provenance.get("created", "at an unknown time")
        lines, axis = begun.axis.lines(begun.matrix_shape), begun.axis
    raise JobError(
        f"{part_path(target)}, begun {created} and with {error.lines} of {lines} {axis} computed, "
        f"is of another version of the function or of the data that it reads: {error}; nothing is "
        "mixed: restore that version, or begin again with overwrite=true"
    ) from error
