"""The stream of blocks of a job."""

from __future__ import annotations

from typing import Any

from jobs.functions.failures import explaining_failures
from jobs.job import Job
from jobs.streams import summed as batches
from jobs.streams.at_points import PointStream


def open_stream(job: Job, strategy: str, engine: str = "auto") -> Any:
    """The blocks of a job by a strategy; the same random numbers are drawn each time.

    Args:
        job: The job.
        strategy: The strategy.
        engine: ``auto``, or one of those that `autodiff_core.engines` names.

    Returns:
        A `BlockStream`, or what has the same attributes and methods.

    Raises:
        JobError: The strategy cannot differentiate the function.
    """
    with explaining_failures(job.function):
        if job.points is not None:
            return PointStream(
                job.function.function,
                tuple(job.point.values()),
                seed=job.seed,
                operation=job.operation,
                strategy=strategy,
                chunk_size=job.chunk_size,
            )
        return batches.open_stream(
            job.function.function,
            job.inputs,
            seed=job.seed,
            operation=job.operation,
            strategy=strategy,
            engine=engine,
            vectors=job.stacked_vectors,
            chunk_size=job.chunk_size,
        )
