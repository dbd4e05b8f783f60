"""Run a job that computes a sparse matrix from compressed products."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import JobError
from jobs.execution.dense import execute_dense, finished_result
from jobs.execution.failure_status import reported_failures
from jobs.execution.resuming import OTHER_VERSION, begins_anew, discard_unfinished
from jobs.execution.run_lock import computing_in
from jobs.functions.failures import explaining_failures
from jobs.job import Job
from jobs.records.status_file import StatusFile
from jobs.reporting.terminal import Display
from outputs import part_path

if TYPE_CHECKING:
    from jobs.sparsity.detection import Sparsity


def execute_sparse(job: Job, display: Display, *, overwrite: bool, plan_only: bool) -> Path:
    """Compute the compressed products of a sparse matrix as jobs, and assemble them.

    Where sparsity does not pay, or `sparsity=auto` fails in any way, the dense job runs instead,
    and its record says why.

    Args:
        job: The job; its result is not finished, or `overwrite` is set.
        display: Shows plan, progress and outcome.
        overwrite: Whether a finished result of the dense job is replaced.
        plan_only: Whether to stop after the plans.

    Returns:
        The path of the result, or of the last products of a shard.

    Raises:
        JobError: A package for sparse matrices is missing, or the job cannot start or continue.
    """
    try:
        from jobs.execution import kept_products
        from jobs.sparsity import detection
    except ImportError as error:
        raise JobError(f"sparsity={job.sparsity}: {error}") from error

    def densely(reason: str) -> Path:
        display.say(f"note: the matrix is computed densely: {reason}")
        dense = replace(job, sparsity="none", dense_reason=reason)
        path = execute_dense(dense, display, overwrite=overwrite, plan_only=plan_only)
        if not plan_only:
            kept_products.discard_products(job)
        return path

    if begins_anew(job, overwrite) and not plan_only:
        kept_products.discard_products(job)
        discard_unfinished(job)

    if part_path(job.paths.result).exists():
        return densely("an earlier start began to compute it densely")
    if not plan_only:
        # Other processes with this job name the one that detects.
        facts = {"function": job.function.reference, "fingerprint": job.fingerprint}
        StatusFile(job.paths.status).update(operation=job.operation, **facts)
    sparsity = detection.find_sparsity(job)
    if sparsity.is_kept and not plan_only:
        difference = kept_products.difference_of_products(job, sparsity)
        if difference:
            display.say(f"note: {OTHER_VERSION} ({difference})")
            kept_products.discard_products(job)
            sparsity = detection.find_sparsity(job)
    if sparsity.colouring is None:
        return densely(sparsity.reason)
    try:
        return _by_products(job, sparsity, display, overwrite=overwrite, plan_only=plan_only)
    except JobError as error:
        # A pattern of the user is what was asked for, and all shards need the same products.
        if job.sparsity != "auto" or job.shard is not None:
            raise
        return densely(f"the compressed products failed: {str(error).splitlines()[0]}")


def _by_products(
    job: Job, sparsity: Sparsity, display: Display, *, overwrite: bool, plan_only: bool
) -> Path:
    """Compute the compressed products, and assemble the matrix from them."""
    from jobs.execution import kept_products
    from jobs.sparsity import assembly, compressed_products

    colouring = sparsity.colouring
    assert colouring is not None
    rows, columns = colouring.pattern.shape
    display.say(
        f"sparse {job.operation} of {job.function.reference}: {rows} rows x {columns} columns, "
        f"{colouring.pattern.entries} entries ({sparsity.reason}), {colouring.colours} products by "
        f"{colouring.kind} colouring"
    )
    for note in sparsity.notes:
        display.say(f"note: {note}")
    status = StatusFile(job.paths.status)
    with reported_failures(status):
        status.update(
            state="running",
            operation=job.operation,
            function=job.function.reference,
            fingerprint=job.fingerprint,
            shape=[rows, columns],
        )
        with explaining_failures(job.function):
            jobs = compressed_products.compressed_jobs(job, colouring)
        products = [_product(each, display, plan_only=plan_only) for each in jobs]
        if plan_only:
            return job.paths.result
        if job.shard is not None:
            status.finish({})
            return _finished_shard(products, display)
        try:
            found, summary = assembly.assemble(job, sparsity, products)
        except JobError:
            if not sparsity.is_kept:
                raise
            display.say("note: the pattern of an earlier start does not fit; it is detected again")
            kept_products.discard_products(job)
            return execute_sparse(job, display, overwrite=overwrite, plan_only=plan_only)
        status.finish(found.record())
    display.outcome(found, summary, str(job.paths.result))
    return job.paths.result


def _product(job: Job, display: Display, *, plan_only: bool) -> Path:
    if (finished := finished_result(job)) or plan_only:
        return finished or execute_dense(job, display, plan_only=True, is_part=True)
    with computing_in(job.paths.directory):
        return execute_dense(job, display, is_part=True)


def _finished_shard(products: list[Path], display: Display) -> Path:
    """Say how the products of all shards become a result, and return the last of these."""
    display.say(
        "the products of this shard are finished; when all are, python -m outputs.merge "
        f"puts those of {', '.join(str(each.parent.parent) for each in products)} together "
        "as result.h5 there, and the same command without shard= assembles the matrix"
    )
    display.say(str(products[-1]))
    return products[-1]
