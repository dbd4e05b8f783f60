"""Continue what an earlier start began, if the function is still the one that began it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from jobs.errors import JobError
from jobs.job import Job
from jobs.machine.supervision import KILLED_PROCESS
from jobs.verification.numerics import allowed_error
from outputs import (
    ChangedFunctionError,
    Reference,
    ResultDescription,
    ResultWriter,
    open_result,
    part_path,
)


def discard_unfinished(job: Job) -> None:
    """Remove what earlier starts of a job left unfinished, so that it begins with today's function.

    A start that the supervisor or SLURM makes again continues instead: it is the same command.

    Args:
        job: The job, which `overwrite` computes anew.

    Raises:
        BeingWrittenError: Another process writes it.
    """
    if KILLED_PROCESS in os.environ or os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        return
    for path in (job.paths.result, job.paths.replacement):
        ResultWriter.discard(path)
    job.paths.replacement.unlink(missing_ok=True)


def resumed(job: Job, target: Path, description: ResultDescription) -> ResultWriter:
    """Open what an earlier start began, after comparing it with what the function gives now.

    Data that a function reads by itself are not part of the fingerprint. So the value, the probe
    products and each block of before must be those of today's function. What was begun by another
    one, but holds no block yet, is begun again.

    Args:
        job: The job.
        target: The path of the finished file.
        description: What the function gives now, with the probes.

    Raises:
        JobError: Blocks were computed by another version of the function or of its data.
    """
    reference = reference_of(job, description)
    try:
        return ResultWriter.resume(
            target, description.fingerprint, reference=reference, fsync=job.fsync
        )
    except ChangedFunctionError as error:
        if error.lines:
            _refuse(target, error)
    ResultWriter.discard(target)
    return ResultWriter.create(target, description, fsync=job.fsync)


def reference_of(job: Job, description: ResultDescription) -> Reference:
    """Return what the function of a job gives now, with the tolerance of rounding.

    Args:
        job: The job. A tolerance below that of rounding is for the blocks, not for repetitions on
            other devices.
        description: What the function gives now, with the probes.
    """
    rounding = allowed_error(replace(job, tolerance=None))
    return Reference(
        description.value, description.probes, max(rounding, job.tolerance or rounding)
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
