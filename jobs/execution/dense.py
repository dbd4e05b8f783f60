"""Run a job that computes every row or column."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.errors import ContradictedError, JobError, StrategyError
from jobs.execution.begun import Begun, begun_or_discarded, read_begun
from jobs.execution.block_sources import BlockSource, Remaining
from jobs.execution.chunk_size import ChunkSize
from jobs.execution.exclusion import discard, notes_of, with_strategies_that_work
from jobs.execution.failure_status import reported_failures
from jobs.execution.local_source import LocalSource
from jobs.execution.outcome import (
    Record,
    execution_record,
    judged,
    outcome_summary,
    running_status,
)
from jobs.execution.preparation import Prepared, prepare
from jobs.execution.resuming import (
    begins_anew,
    discard_unfinished,
    earlier_lines,
    resumed,
    with_this_attempt,
)
from jobs.execution.workers.pool import WorkerPool
from jobs.job import Job
from jobs.machine.interruption import leaving_after_a_block
from jobs.machine.measurement import forget_peak, release_memory
from jobs.planning.thresholds import THRESHOLDS
from jobs.records.attempts import recorded
from jobs.records.status_file import StatusFile
from jobs.reporting.terminal import Display
from jobs.streams.kept import kept_lines
from jobs.streams.nonfinite import NonFinite
from jobs.streams.stream import block_end
from jobs.verification.verdict import contradiction
from outputs import (
    BackgroundWriter,
    ResultDescription,
    ResultExistsError,
    ResultWriter,
    Verdict,
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
        overwrite: Whether a finished result is replaced, and what was begun is computed anew.
        plan_only: Whether to stop after the plan.
        is_part: Whether a larger job, of which this one is a part, reports the outcome.

    Returns:
        The path of the result.

    Raises:
        JobError: The job cannot start or continue. Computed blocks stay on the disk.
    """
    final = job.paths.result
    if begins_anew(job, overwrite) and not plan_only:
        discard_unfinished(job)
    # A replacement grows beside the finished result and takes its place in one step.
    target = job.paths.replacement if overwrite and final.exists() else final
    if plan_only:
        begun, attempts, status = read_begun(job, target), [], None
    else:
        begun = begun_or_discarded(job, target, display.say)
        attempts = begun.attempts if begun else []
        status = StatusFile(job.paths.status, fingerprint=job.fingerprint, attempts=attempts)
        # Version 0.1 gave a replacement this name before that of the result.
        job.paths.replacement.unlink(missing_ok=True)
    with reported_failures(status) if status else nullcontext():

        def attempt(job: Job, begun: Begun | None) -> tuple[Verdict, dict[str, str]] | None:
            return _attempt(job, target, begun, status, display, attempts)

        outcome = with_strategies_that_work(job, target, begun, display, attempt)
    if outcome is not None and not is_part:
        display.outcome(*outcome, str(final))
    return final


def _attempt(
    job: Job,
    target: Path,
    begun: Begun | None,
    status: StatusFile | None,
    display: Display,
    attempts: list[dict[str, Any]],
) -> tuple[Verdict, dict[str, str]] | None:
    """Plan a job and, with a status file, run it; return the verdict and the user's summary."""
    if status is not None:
        # Written before anything is tried, so that it exists should that end the process.
        status.update(state="planned", function=job.function.reference, **_left_out(job))
    prepared = prepare(job, target, status, begun)
    for note in prepared.job.notes[len(job.notes) :]:
        display.say(f"note: {note}")
    _show_plan(prepared, display)
    if status is None:
        if seen := contradiction(job, prepared.differences):
            raise ContradictedError(seen)
        return None
    if len(job.devices) > 1 and 0 not in prepared.facts.shape:
        # The workers open their own streams: free this one.
        decision = replace(prepared.decision, stream=None)
        prepared = replace(prepared, decision=decision, stream=None)
        release_memory()
    with _explaining_failures(prepared):
        record, found = _run(prepared, status, display, attempts)
    status.finish(found.record())
    return found, outcome_summary(prepared, record)


def _left_out(job: Job) -> dict[str, dict[str, str]]:
    return {"excluded": dict(job.excluded)} if job.excluded else {}


def _show_plan(prepared: Prepared, display: Display) -> None:
    """Show the plan, and a contradiction at once: the user may not want to wait for the rest.

    Raises:
        JobError: The plan exceeds the memory or the disk.
    """
    display.plan(prepared.plan)
    # The verdict at the end says what to do.
    if seen := contradiction(prepared.job, prepared.differences, with_advice=False):
        display.warn(f"contradicted: {seen}")
    prepared.plan.check()


@contextmanager
def _explaining_failures(prepared: Prepared) -> Iterator[None]:
    """Add to a failure the strategy, and what contradicts the derivative: it may be the reason."""
    try:
        yield
    except JobError as error:
        if isinstance(error, StrategyError):
            error.strategy = error.strategy or prepared.decision.strategy
        is_said = any(str(each) in str(error) for each in prepared.differences)
        if not is_said and (seen := contradiction(prepared.job, prepared.differences)):
            error.args = (f"{error}; the derivative is contradicted: {seen}",)
        raise


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


def _run(
    prepared: Prepared, status: StatusFile, display: Display, attempts: list[dict[str, Any]]
) -> tuple[Record, Verdict]:
    """Compute, verify and write what is missing; return what has happened, and the verdict."""
    job, decision, axis = prepared.job, prepared.decision, prepared.facts.axis
    record = Record(NonFinite(job.nonfinite), display.say, notes_of(job))
    for fallback in decision.fallbacks:
        record.note(fallback)
    if prepared.chunk_limit is not None:
        record.note(
            "the system killed the job because memory ran out; continuing with at most "
            f"{prepared.chunk_limit} {axis} at a time"
        )
    if prepared.begun is not None and prepared.is_begun_anew:
        discard(prepared.target, job.fingerprint)
        earlier = ", ".join(prepared.begun.strategies)
        record.note(
            f"what {earlier} had computed by {prepared.begun.axis} is computed again by {axis}"
        )
    chunks = ChunkSize(
        decision.chunk_size, prepared.budget, record.note, largest=decision.largest_chunk
    )
    description = replace(prepared.description, probes=prepared.check.probes())
    forget_peak(job.device)
    with (
        _writer(prepared, description, record.note) as writer,
        _source(prepared, record) as source,
    ):
        if writer.damaged:
            damaged = ", ".join(f"{start} to {stop}" for start, stop in writer.damaged)
            record.note(f"{axis} {damaged} were damaged on the disk and are computed again")
        record.nonfinite.carry(writer.nonfinite, writer.first_nonfinite)
        probes = prepared.earlier_probes
        attempts = with_this_attempt(job, attempts, description, probes, writer, record.note)
        if job.verify == "probe":
            # Resuming has compared them with the same products; or of a diagonal these products
            # with those that its blocks were compared with when they were computed.
            for lines in earlier_lines(description, writer):
                prepared.check.record(lines.start, lines.stop, 0.0)
        status.update(state="running", attempts=attempts, **running_status(prepared))
        _compute(_Run(prepared, record, chunks, status, display), source, writer)
        if job.shard is None and job.structure != "diagonal":
            prepared.check.complete(writer.part)
        found, verification = judged(prepared)
        record_of_run = execution_record(prepared, source, chunks, record, verification)
        record_of_run["attempts"] = recorded(attempts, description.lines)
        final = job.paths.result
        replaced = None if prepared.target == final else final
        writer.finish(record_of_run, strategy=prepared.strategies, replaced=replaced)
    return record, found


@contextmanager
def _source(prepared: Prepared, record: Record) -> Iterator[BlockSource]:
    """Yield the source of blocks: this process, or a process for each of several devices."""
    if prepared.stream is not None:
        yield LocalSource(prepared.job, prepared.decision.strategy, prepared.stream, prepared.check)
        return
    with WorkerPool(prepared, record.note) as pool:
        yield pool


@contextmanager
def _writer(
    prepared: Prepared, description: ResultDescription, note: Callable[[str], None]
) -> Iterator[ResultWriter]:
    """Yield a writer of a new file, or of one that an earlier start began.

    A new file that ends without a single block is removed again: it holds nothing to keep, and
    reserves space on the disk.
    """
    job, target = prepared.job, prepared.target
    part = part_path(target)
    is_new = True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = ResultWriter.create(target, description, fsync=job.fsync)
    except ResultExistsError:
        # Also where another process has just created the file: resuming names that process.
        is_new = False
        probes = prepared.earlier_probes
        writer = resumed(job, target, prepared.begun, description, probes, note)
    is_empty = False
    try:
        with writer:
            try:
                yield writer
            except BaseException:
                is_empty = writer.is_in_place() and (
                    sum(map(len, writer.missing())) == description.lines
                )
                raise
    except BaseException:
        if is_new and is_empty:
            part.unlink(missing_ok=True)
        raise


def _kept(prepared: Prepared) -> list[range]:
    """Return the lines of the blocks that planning has computed and the run can use.

    Larger ones than were chosen are written in chunks of that size, where to hold them takes no
    more memory than the plan shows. The engines that prepare a program for each chunk
    size would have to prepare more of them, where these blocks are not whole chunks that the run
    would compute.
    """
    stream, decision = prepared.stream, prepared.decision
    size, most = decision.chunk_size, (1 + THRESHOLDS.share_of_peak) * decision.peak_bytes
    lines: list[range] = []
    for each in kept_lines(stream):
        if len(each) <= size or decision.costs.peak_bytes(len(each)) <= most:
            lines.append(each)
        elif decision.peak_bytes + len(each) * decision.costs.line_bytes <= most:
            start = each.start
            while start < each.stop:
                end = min(block_end(prepared.facts, start, size), each.stop)
                lines.append(range(start, end))
                start = end
    if stream is None or stream.engine not in ("captured", "compiled"):
        return lines
    return [each for each in lines if len(each) % size == 0 and each.start % size == 0]


def _compute(run: _Run, source: BlockSource, writer: ResultWriter) -> None:
    """Compute and write the missing blocks, and report each of them."""
    prepared, record, axis = run.prepared, run.record, run.prepared.facts.axis
    missing = writer.missing()
    total = sum(map(len, missing))
    lines = prepared.description.lines
    remaining = Remaining(missing, run.chunks, prepared.facts, _kept(prepared))
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
