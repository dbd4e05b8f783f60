"""The dense jobs that compute the compressed products of a sparse matrix."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from torch import Tensor

from autodiff_core.sparse import (
    Colouring,
    seeds,
    sides,
)
from jobs.functions.returned_values import leaves_of
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.sparsity.detection import colouring_file, function_value
from jobs.strategies import FORWARD, LOOPS

SIDES = {"right": "columns", "left": "rows"}


def _compressed_job(job: Job, colouring: Colouring, side: str) -> Job:
    """Return the job of the products from one side.

    Args:
        job: The job of the sparse matrix.
        colouring: Its colouring.
        side: ``right`` or ``left``.
    """
    of_job = OPERATIONS[job.operation]
    operation = OPERATIONS[of_job.from_right if side == "right" else of_job.from_left]
    colours = colouring.column_colours if side == "right" else colouring.row_colours
    count = colouring.columns if side == "right" else colouring.rows
    assert colours is not None
    like: dict[str, Tensor] = job.point
    if operation.name == "vjp":
        like = {f"output{i}": leaf for i, leaf in enumerate(leaves_of(function_value(job)))}
    stacked = seeds(colours, count, list(like.values()))
    strategy = job.strategy
    if operation.is_from_left and strategy in FORWARD:
        strategy = "vectorize" if strategy in LOOPS else "reverse-loop"
    digest = hashlib.sha256(f"{job.fingerprint} {side} {count}".encode())
    for part in (colouring.pattern.indptr, colouring.pattern.indices, colours):
        digest.update(np.ascontiguousarray(part).data)
    return replace(
        job,
        operation=operation.name,
        strategy=strategy,
        vectors=dict(zip(like, stacked, strict=True)),
        sparsity="none",
        structure="full",
        compressed=side,
        tile=None,
        compression="none",
        nonfinite="record",
        fingerprint=digest.hexdigest(),
        paths=job.paths.products(SIDES[side]),
    )


def kept_compressed_job(job: Job, side: str) -> Job:
    """Return the job of the products in a worker process, from the colouring that was kept."""
    return _compressed_job(job, Colouring.load(colouring_file(job)), side)


def compressed_jobs(job: Job, colouring: Colouring) -> list[Job]:
    """Return the jobs of the products, those from the right first."""
    return [_compressed_job(job, colouring, side) for side, _ in sides(colouring)]
