"""Run a job, dense or sparse, unless its result is finished."""

from __future__ import annotations

from pathlib import Path

from jobs.errors import JobError
from jobs.execution.dense import execute_dense, finished_result
from jobs.execution.failure_status import clear_failures
from jobs.execution.sparse import execute_sparse
from jobs.job import Job
from jobs.reporting.terminal import Display
from jobs.verification.verdict import shortfall
from outputs import (
    Result,
    SparseResult,
    is_sparse_result,
    open_result,
    open_sparse_result,
)


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
        JobError: The job cannot start or continue; computed blocks stay on the disk. Or its result
            is finished and contradicted, or not verified where it must be; the result stays.
    """
    with clear_failures():
        finished = None if overwrite else finished_result(job)
        if finished is not None:
            path = finished
            _show_finished(job, display, path)
        else:
            run = execute_dense if job.sparsity == "none" else execute_sparse
            path = run(job, display, overwrite=overwrite, plan_only=plan_only)
        if finished is not None or not plan_only:
            _judge(job, path)
        return path


def _show_finished(job: Job, display: Display, path: Path) -> None:
    with _opened(job, path) as result:
        if result.fingerprint != job.fingerprint:
            raise JobError(
                f"{path} is the result of another job; choose another place with runs=..."
            )
        shape = " x ".join(map(str, result.shape))
        display.already_finished(result.verdict, shape, str(path))


def _judge(job: Job, path: Path) -> None:
    """Raise the error of a finished result that is not verified as it must be."""
    with _opened(job, path) as result:
        error = shortfall(job, result.verdict, str(path))
    if error is not None:
        raise error


def _opened(job: Job, path: Path) -> Result | SparseResult:
    if is_sparse_result(path):
        return open_sparse_result(path)
    return open_result(path, allow_partial=job.shard is not None)
