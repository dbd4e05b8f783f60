"""Measure single chunks as the job will compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch

from autodiff_core import Block, noting_preparation
from jobs.functions.failures import explaining_failures
from jobs.job import Job
from jobs.machine.measurement import Measurement, limited_memory, measuring, timing
from jobs.machine.process_memory import resident_memory
from jobs.planning.candidate import Candidate, Search
from jobs.planning.cost import Trial
from jobs.streams.curvature import CurvatureStream
from jobs.streams.curvature_blocks import CurvatureBlocksStream
from jobs.streams.kept import forget_kept, forget_lines, keep, kept_lines
from jobs.streams.nonfinite import entries_not_finite
from jobs.streams.stream import Stream, block_end, start_of_trial, stored_dtype, to_numpy
from jobs.verification.probe_check import ProbeCheck

Measure = Callable[[torch.device], AbstractContextManager[Measurement]]


def measure_chunk(
    job: Job, candidate: Candidate, chunk_size: int, by: Measure = measuring, number: int = 0
) -> Trial:
    """Compute a chunk of a candidate, handle it as the job will, and return what that took.

    Most streams keep the chunks of the last size for the run.

    Args:
        job: The job.
        candidate: The candidate; its stream is open.
        chunk_size: How many rows or columns are computed.
        by: How time and memory are measured.
        number: How many chunks of this size were measured before.

    Raises:
        JobError: The strategy cannot differentiate the function.
        OutOfMemoryError: The chunk does not fit into the memory.
    """
    stream = candidate.opened
    lines = lines_of_trial(stream, chunk_size, number)
    if not any(len(each) == chunk_size for each in kept_lines(stream)):
        forget_kept(stream)
    forget_lines(stream, lines)
    prepared: list[Measurement] = []

    @contextmanager
    def preparing() -> Iterator[None]:
        with timing(job.device) as part:
            yield
        prepared.append(part)

    with (
        noting_preparation(preparing) as preparation,
        by(job.device) as found,
        explaining_failures(job.function),
    ):
        block, share = _computed(stream, lines.start, lines.stop)
        candidate.fallbacks.extend(map(str, block.fallbacks))
        _handle(job, stream, block)
    if share == 1.0:
        keep(stream, block)
    in_vain = min(sum(part.seconds for part in prepared), found.seconds)
    return Trial(
        chunk_size,
        (found.seconds - in_vain) / share,
        found.peak_bytes,
        found.waited,
        share,
        in_vain,
        preparation.continues,
    )


def lines_of_trial(stream: Stream, chunk_size: int, number: int) -> range:
    """Return which lines are measured next in chunks of a size, after a number of them."""
    # Those of the plain engine are blocks too, when a recorded program is measured beside it.
    kept = [each for each in kept_lines(stream) if len(each) == chunk_size]
    start = start_of_trial(stream, chunk_size, max(number, len(kept)))
    return range(start, block_end(stream, start, chunk_size))


def _computed(stream: Stream, start: int, stop: int) -> tuple[Block, float]:
    """Return a block, of a sum over much data of a share of the terms, and that share."""
    if isinstance(stream, CurvatureStream | CurvatureBlocksStream):
        return stream.block_of_a_share(start, stop)
    return stream.block(start, stop), 1.0


def _handle(job: Job, stream: Stream, block: Block) -> None:
    """Do with a block what the job will do: inspect it, verify it, bring it to the host."""
    entries_not_finite(block)
    if job.verify == "probe":
        ProbeCheck.rehearsal(job, stream).error(block)
    stored = stored_dtype(job.storage or stream.dtype)
    values = to_numpy(block.values).astype(stored, copy=False)
    # Columns are turned to be written; those of a Hessian are rows, by symmetry.
    if job.operation not in ("hessian", "ggn", "fisher"):
        np.ascontiguousarray(values)


@contextmanager
def within_budget(search: Search) -> Iterator[None]:
    """Let a probe that would exceed the memory budget fail, as on a machine with no more."""
    if search.job.device.type != "cpu":
        yield
        return
    with limited_memory(max(0, search.budget.bytes - resident_memory())):
        yield
