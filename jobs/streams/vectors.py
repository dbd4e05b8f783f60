"""The vectors of a product: stored ones as they are, drawn ones range by range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from autodiff_core import LazyVectors
from jobs.job import Job

# Of vectors that are drawn; 64 MiB in double precision.
_ELEMENTS_AT_ONCE = 2**23


def vectors_of(job: Job) -> Any:
    """Return the vectors of a job as `autodiff_core` takes them; None where there are none."""
    if job.drawn is not None:
        return LazyVectors(job.drawn.count, lambda start, stop: vectors_of_range(job, start, stop))
    return tuple(job.vectors.values()) if job.vectors else None


def vectors_of_range(job: Job, start: int, stop: int) -> tuple[Tensor, ...]:
    """Return the vectors start, ..., stop - 1 of a job, stacked."""
    if job.drawn is None:
        return tuple(tensor[start:stop] for tensor in job.vectors.values())
    drawn = job.drawn.stacked(start, stop)
    return tuple(
        torch.from_numpy(drawn[spec.name]).to(job.device, getattr(torch, spec.dtype))
        for spec in job.drawn.tensors
    )


def ranges_of_vectors(job: Job) -> Iterator[range]:
    """Yield ranges of vectors that may be in memory together: all of those that are stored."""
    if job.drawn is None:
        yield range(len(next(iter(job.vectors.values()))))
        return
    elements = max(1, sum(spec.size for spec in job.drawn.tensors))
    step = max(1, _ELEMENTS_AT_ONCE // elements)
    for start in range(0, job.drawn.count, step):
        yield range(start, min(start + step, job.drawn.count))
