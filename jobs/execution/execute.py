"""Run a job, dense or sparse, unless its result is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.errors import JobError
from jobs.execution.dense import execute_dense, finished_result
from jobs.execution.failure_status import clear_failures
from jobs.execution.sparse import execute_sparse
from jobs.job import Job
from jobs.reporting.terminal import Display
from outputs import is_sparse_result, open_result, open_sparse_result


def execute(
    job: Job, display: Display, *, overwrite: bool = False, plan_only: bool = False
) -> Path:
    """Compute what is missing of a result, verify it and give it its name.

    Args:
        job: The job.
        display: Shows plan, progress and outcome.
        overwrite: Whether a finished result is replaced.
        plan_only: Whether to stop after the plan.

    Returns:
        The path of the result.

    Raises:
        JobError: The job cannot start or continue. Computed blocks stay on the disk.
    """
    with clear_failures():
        finished = None if overwrite else finished_result(job)
        if finished is not None:
            return _already_finished(job, display, finished)
        run = execute_dense if job.sparsity == "none" else execute_sparse
        return run(job, display, overwrite=overwrite, plan_only=plan_only)


def _already_finished(job: Job, display: Display, path: Path) -> Path:
    if is_sparse_result(path):
        opened: Any = open_sparse_result(path)
    else:
        opened = open_result(path, allow_partial=job.shard is not None)
    with opened as result:
        if result.fingerprint != job.fingerprint:
            raise JobError(
                f"{path} is the result of another job; choose another place with runs=..."
            )
        shape = " x ".join(map(str, result.shape))
    display.already_finished(shape, str(path))
    return path
