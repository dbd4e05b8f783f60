"""The precision that a job's numbers are verified to, and what it comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from jobs.functions import attention
from jobs.functions.batch_sum import BatchSum
from jobs.functions.blocks import BlocksFunction
from jobs.functions.curvature import Curvature
from jobs.functions.stages import Observed, ObservedFunction, observed
from jobs.job import Job
from jobs.sources.source_array import name_of


def observing(job: Job) -> tuple[Job, ObservedFunction | None]:
    """Return a job whose function notes its arithmetic where it is evaluated first.

    Returns:
        The job, and its function; None for many points and for sums, of which several terms are
        evaluated.
    """
    function = job.function.function
    is_of_several = isinstance(function, BatchSum | BlocksFunction | Curvature)
    if job.points is not None or job.is_ragged or is_of_several:
        return job, None
    watched = ObservedFunction(function, job.first_point)
    return replace(job, function=replace(job.function, function=watched)), watched


def with_observed(job: Job, found: Observed | None = None) -> Job:
    """Return a job that knows the arithmetic of its function.

    Args:
        job: The job.
        found: What an evaluation within the job has shown; None evaluates the function now, and so
            does attention, for which torch may choose another kernel outside of a job.
    """
    if found is None or found.attention:
        found = observed(job.function.function, job.first_point, job.seed)
    notes = [f"the function drops imaginary parts in {line}" for line in found.real_casts]
    notes += [attention.NOTE] if found.attention == "fused" else []
    return replace(job, observed=found, notes=(*job.notes, *notes))


def allowed_error(job: Job) -> float:
    """Return the largest relative error that passes.

    Without the option that is √ε of the least precise dtype in which entries are computed or
    stored: that of the job, of a stage inside the function, or of the file.
    """
    if job.tolerance is not None:
        return job.tolerance
    return max(torch.finfo(dtype).eps for dtype, _ in _dtypes(job)) ** 0.5


def precision_figures(job: Job) -> dict[str, Any]:
    """Return what the record says beside the tolerance: where it comes from."""
    if job.verify == "off":
        return {}
    stage = {} if job.stage is None else {"narrowest_stage": job.stage.figures()}
    return {"tolerance_from": _origin(job), **stage}


def _origin(job: Job) -> str:
    if job.tolerance is not None:
        return f"verify.tolerance={job.tolerance:g}"
    return max(_dtypes(job), key=lambda each: torch.finfo(each[0]).eps)[1]


def advice(job: Job) -> str:
    """Say whether a wider dtype may help where two routes disagree; empty where there is none."""
    if job.stage is not None:
        return f"; the function computes in {job.stage}, so that no dtype= makes it wider"
    widest = torch.complex128 if job.dtype.is_complex else torch.float64
    if job.dtype == widest:
        return ""
    return f"; dtype={name_of(widest)} helps if the function is ill-conditioned"


def _dtypes(job: Job) -> list[tuple[torch.dtype, str]]:
    """Return the dtypes that entries pass, with what they are of."""
    found = [(job.dtype, f"dtype={name_of(job.dtype)}")]
    if job.stage is not None:
        found.append((job.stage.dtype, str(job.stage)))
    if job.storage is not None:
        found.append((job.storage, f"output.dtype={name_of(job.storage)}"))
    return found
