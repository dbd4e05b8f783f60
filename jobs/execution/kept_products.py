"""Find out whether compressed products of an earlier start are still those of the function."""

from __future__ import annotations

import shutil

from jobs.execution.resuming import reference_of
from jobs.functions.failures import explaining_failures
from jobs.functions.returned_values import named_outputs
from jobs.job import Job
from jobs.records.description import arrays
from jobs.sparsity.compressed_products import SIDES, compressed_jobs
from jobs.sparsity.detection import Sparsity, colouring_file, function_value, matrix_shape
from jobs.verification.numerics import probes_for_the_file, rounding_floor
from jobs.verification.precision import allowed_error, with_observed
from jobs.verification.probe_products import ProbeProducts
from jobs.verification.routes import Routes
from outputs import Probes, ResultWriter, open_result, part_path


def difference_of_products(job: Job, sparsity: Sparsity) -> str:
    """Return how kept products, finished or not, differ from today's; empty if they do not.

    Args:
        job: The job of the sparse matrix.
        sparsity: Its sparsity, with the colouring that an earlier start found.
    """
    assert sparsity.colouring is not None
    shape = matrix_shape(job)
    if sparsity.colouring.pattern.shape != shape:
        return f"the matrix has the shape {shape}"
    differences = map(_difference, compressed_jobs(job, sparsity.colouring))
    return next(filter(None, differences), "")


def discard_products(job: Job) -> None:
    """Remove the products and the colouring that a job keeps.

    Of a shard these are its own products, and those that were merged of all shards.

    Args:
        job: The job of the sparse matrix.

    Raises:
        BeingWrittenError: Another process writes them.
    """
    for kind in SIDES.values():
        paths = job.paths.products(kind)
        ResultWriter.discard(paths.result)
        paths.whole.unlink(missing_ok=True)
        shutil.rmtree(paths.directory, ignore_errors=True)
    colouring_file(job).unlink(missing_ok=True)


def _difference(job: Job) -> str:
    kept = [p for p in (job.paths.result, job.paths.whole) if p.exists() or part_path(p).exists()]
    if not kept:
        return ""
    with explaining_failures(job.function):
        value = function_value(job)
        job = with_observed(job)
        probes = _probes(job, value) if job.verify == "probe" else None
    now = reference_of(job, arrays(named_outputs(job.function, value)), probes)
    for path in dict.fromkeys(kept):
        with open_result(path, allow_partial=True) as result:
            if result.fingerprint != job.fingerprint:
                return "another colouring"
            if difference := now.difference(result.file):
                return difference
    return ""


def _probes(job: Job, value: object) -> Probes | None:
    tolerance = allowed_error(job)
    probe, _ = ProbeProducts(Routes(job, value), tolerance).of_product()
    if probe is None:
        return None
    floor = rounding_floor(job, value, probe, tolerance)
    return probes_for_the_file(probe, None, tolerance, floor, is_product=True)
