"""Run a job that computes every row or column."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.execution.block_sources import BlockSource, Remaining
from jobs.execution.chunk_size import ChunkSize
from jobs.execution.failure_status import reported_failures
from jobs.execution.local_source import LocalSource
from jobs.execution.outcome import (
    Record,
    execution_record,
    outcome_summary,
    running_status,
)
from jobs.execution.preparation import Prepared, prepare
from jobs.execution.workers.pool import WorkerPool
from jobs.job import Job
from jobs.machine.interruption import leaving_after_a_block
from jobs.machine.measurement import forget_peak, release_memory
from jobs.records.status_file import StatusFile
from jobs.reporting.terminal import Display
from jobs.streams.nonfinite import NonFinite
from outputs import (
    BackgroundWriter,
    ResultDescription,
    ResultExistsError,
    ResultWriter,
    part_path,
)


def finished_result(job: Job) -> Path | None:
    """Return the finished result of a job, or of the whole matrix of a shard; None without one."""
    return next((path for path in (job.paths.result, job.paths.whole) if path.exists()), None)


def execute_dense(
    job: Job,
    display: Display,
    *,
    overwrite: bool = False,
    plan_only: bool = False,
    is_part: bool = False,
) -> Path:
    """Plan a job, compute what is missing of its result, verify it and give it its name.

    Args:
        job: The job; its result is not finished, or `overwrite` is set.
        display: Shows plan, progress and outcome.
        overwrite: Whether a finished result is replaced.
        plan_only: Whether to stop after the plan.
        is_part: Whether a larger job, of which this one is a part, reports the outcome.

    Returns:
        The path of the result.

    Raises:
        JobError: The job cannot start or continue. Computed blocks stay on the disk.
    """
    final = job.paths.result
    # A replacement grows beside the finished result and takes its place in one step.
    target = job.paths.replacement if overwrite and final.exists() else final
    if plan_only:
        prepared = prepare(job, target)
        display.plan(prepared.plan)
        prepared.plan.check()
        return final
    status = StatusFile(job.paths.status)
    with reported_failures(status):
        prepared = prepare(job, target, status)
        display.plan(prepared.plan)
        prepared.plan.check()
        if len(job.devices) > 1 and 0 not in prepared.facts.shape:
            # The workers open their own streams: free this one.
            decision = replace(prepared.decision, stream=None)
            prepared = replace(prepared, decision=decision, stream=None)
            release_memory()
        summary = _run(prepared, status, display)
        target.replace(final)
        status.update(state="finished", message="", verification=summary["verified"])
    if not is_part:
        display.outcome(summary, str(final))
    return final


@dataclass(frozen=True)
class _Run:
    """A prepared job while its blocks are computed.

    Attributes:
        prepared: What was decided before.
        record: What happens, for the result.
        chunks: The chunk size, which changes as the job runs.
        status: Where watchers read the progress.
        display: Where the user sees it.
    """

    prepared: Prepared
    record: Record
    chunks: ChunkSize
    status: StatusFile
    display: Display


def _run(prepared: Prepared, status: StatusFile, display: Display) -> dict[str, str]:
    """Compute, verify and write what is missing; return the summary for the user."""
    job, decision, axis = prepared.job, prepared.decision, prepared.facts.axis
    record = Record(NonFinite(job.nonfinite), display.say)
    for fallback in decision.fallbacks:
        record.note(fallback)
    if prepared.chunk_limit is not None:
        record.note(
            "the system killed the job because memory ran out; continuing with at most "
            f"{prepared.chunk_limit} {axis} at a time"
        )
    chunks = ChunkSize(
        decision.chunk_size, prepared.budget, record.note, largest=decision.largest_chunk
    )
    description = replace(prepared.description, probes=prepared.check.probes())
    forget_peak()
    with (
        _writer(prepared.target, description, job.fsync) as writer,
        _source(prepared, record) as source,
    ):
        if writer.damaged:
            damaged = ", ".join(f"{start} to {stop}" for start, stop in writer.damaged)
            record.note(f"{axis} {damaged} were damaged on the disk and are computed again")
        status.update(state="running", **running_status(prepared))
        _compute(_Run(prepared, record, chunks, status, display), source, writer)
        if job.shard is None:
            prepared.check.complete(writer.part)
        writer.finish(execution_record(prepared, source, chunks, record))
    return outcome_summary(prepared, record)


@contextmanager
def _source(prepared: Prepared, record: Record) -> Iterator[BlockSource]:
    """Yield the source of blocks: this process, or a process for each of several devices."""
    if prepared.stream is not None:
        yield LocalSource(prepared.job, prepared.stream, prepared.check)
        return
    with WorkerPool(prepared, record.note) as pool:
        yield pool


@contextmanager
def _writer(
    target: Path, description: ResultDescription, fsync: Literal["block", "end"]
) -> Iterator[ResultWriter]:
    """Yield a writer of a new file, or of one that an earlier run began.

    A new file that ends without a single block is removed again: it holds nothing to keep, and
    reserves space on the disk.
    """
    part = part_path(target)
    is_new = True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = ResultWriter.create(target, description, fsync=fsync)
    except ResultExistsError:
        # Also where another process has just created the file: resuming names that process.
        is_new = False
        writer = ResultWriter.resume(target, description.fingerprint, fsync=fsync)
    is_empty = False
    try:
        with writer:
            try:
                yield writer
            except BaseException:
                is_empty = sum(map(len, writer.missing())) == description.lines
                raise
    except BaseException:
        if is_new and is_empty:
            part.unlink(missing_ok=True)
        raise


def _compute(run: _Run, source: BlockSource, writer: ResultWriter) -> None:
    """Compute and write the missing blocks, and report each of them."""
    prepared, record, axis = run.prepared, run.record, run.prepared.facts.axis
    missing = writer.missing()
    total = sum(map(len, missing))
    lines = prepared.description.lines
    remaining = Remaining(missing, run.chunks, prepared.facts)
    started = time.monotonic()
    with (
        BackgroundWriter(writer, shares_cores=source.shares_cores) as background,
        run.display.progress(total, axis) as advance,
        leaving_after_a_block() as leave,
        # Closed first, also if a block cannot be written, so that nothing is computed in vain.
        closing(source.blocks(remaining, leave.is_asked)) as blocks,
    ):
        for block in blocks:
            for fallback in block.fallbacks:
                record.note(fallback)
            prepared.check.record(block.start, block.stop, block.error)
            record.nonfinite.record(f"{axis} {block.start} to {block.stop}", block.not_finite)
            background.submit(block.start, block.stop, block.values, block.written)
            record.lines += block.stop - block.start
            record.seconds = time.monotonic() - started
            advance(block.stop - block.start)
            done = lines - total + record.lines
            run.status.progress(done, lines, record.lines, record.seconds)
        leave.take()
    record.seconds = time.monotonic() - started
