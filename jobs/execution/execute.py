"""Run a job: the only place where the core and the writer meet."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from jobs.errors import JobError, OutOfMemoryError, is_of_launcher
from jobs.execution.chunk_size import ChunkSize
from jobs.execution.local_source import LocalSource, Remaining, Source, StreamFacts
from jobs.execution.workers.pool import WorkerPool
from jobs.functions.failures import explaining_failures
from jobs.job import Job
from jobs.machine.devices import threads_of_a_worker
from jobs.machine.interruption import leaving_after_a_block
from jobs.machine.measurement import forget_peak, peak_memory, release_memory
from jobs.machine.memory import Budget, memory_budget
from jobs.machine.supervision import KILLED_PROCESS
from jobs.planning.plan import Plan
from jobs.planning.prediction import make_plan
from jobs.planning.search import Decision, decide
from jobs.planning.symmetry import rows_by_symmetry
from jobs.records.description import describe
from jobs.records.provenance import device_name, git_commit
from jobs.records.status_file import StatusFile, read_status
from jobs.reporting.display import Display
from jobs.streams.nonfinite import NonFinite
from jobs.units import duration, size
from jobs.verification.selection import Proof, prepare_proof
from outputs import (
    BackgroundWriter,
    BeingWrittenError,
    ResultDescription,
    ResultError,
    ResultExistsError,
    ResultWriter,
    is_sparse_result,
    open_result,
    open_sparse_result,
    part_path,
)

_logger = logging.getLogger(__name__)


@dataclass
class Record:
    """What happened while a job ran; kept in the result.

    Attributes:
        nonfinite: The count of entries that are not finite.
        say: Shows a line.
        fallbacks: Slower ways that were taken, as sentences.
        lines: How many rows or columns this run computed.
        seconds: How long that took.
    """

    nonfinite: NonFinite
    say: Callable[[str], None]
    fallbacks: list[str] = field(default_factory=list)
    lines: int = 0
    seconds: float = 0.0

    def note(self, text: str) -> None:
        """Keep and show what a person should know, such as a slower way that was taken."""
        self.fallbacks.append(text)
        self.say(f"note: {text}")


@dataclass(frozen=True)
class Prepared:
    """All that is known before the first block is computed.

    Attributes:
        job: The job.
        target: The file.
        budget: The memory that it may use.
        decision: How it is computed.
        proof: What its blocks are held against.
        description: What the file says.
        plan: The same for people.
        stream: The blocks; None where other processes compute them.
        facts: What is to be known of them here.
        chunk_limit: Half the chunk size at which the system killed the job; None if it did not.
    """

    job: Job
    target: Path
    budget: Budget
    decision: Decision
    proof: Proof
    description: ResultDescription
    plan: Plan
    stream: Any
    facts: StreamFacts
    chunk_limit: int | None


def execute(
    job: Job,
    display: Display,
    *,
    overwrite: bool = False,
    plan_only: bool = False,
    is_part: bool = False,
) -> Path:
    """Compute what is missing of a result, prove it and give it its name.

    Args:
        job: The job.
        display: Where plan, progress and outcome are shown.
        overwrite: Whether a finished result is replaced.
        plan_only: Whether to stop after the plan.
        is_part: Whether the outcome is told by another job, of which this is a part.

    Returns:
        The path of the result.

    Raises:
        JobError: The job cannot start or go on. What is on the disk stays there.
    """
    final = job.paths.result
    with _clear_failures():
        for finished in (final, job.paths.whole):
            if finished.exists() and not overwrite:
                return finished if is_part else _already_finished(job, display, finished)
        if job.sparsity != "none":
            return _execute_sparse(job, display, overwrite=overwrite, plan_only=plan_only)
        # A replacement grows beside the finished result and takes its place in one step.
        target = final.with_name("replacement.h5") if final.exists() else final
        if plan_only:
            prepared = prepare(job, target)
            display.plan(prepared.plan)
            prepared.plan.check()
            return final
        status = StatusFile(job.paths.status)
        with _telling(status):
            prepared = prepare(job, target, status)
            display.plan(prepared.plan)
            prepared.plan.check()
            if len(job.devices) > 1 and 0 not in prepared.facts.shape:
                # What the workers need is not kept here as well.
                decision = replace(prepared.decision, stream=None)
                prepared = replace(prepared, decision=decision, stream=None)
                release_memory()
            facts = _run(prepared, status, display)
            target.replace(final)
            status.update(state="finished", message="", verification=facts["verified"])
    if not is_part:
        display.outcome(facts, str(final))
    return final


def _execute_sparse(job: Job, display: Display, *, overwrite: bool, plan_only: bool) -> Path:
    """Compute the compressed products of a sparse matrix as jobs, and assemble them.

    Where sparsity does not pay it is the dense job that runs, and its record says why.
    """
    try:
        from jobs.sparsity import detection as sparse
    except ImportError as error:
        raise JobError(f"sparsity={job.sparsity}: {error}") from error
    sparsity = sparse.find_sparsity(job)
    if sparsity.colouring is None:
        display.say(f"note: the matrix is computed densely: {sparsity.reason}")
        dense = replace(job, sparsity="none", dense_reason=sparsity.reason)
        return execute(dense, display, overwrite=overwrite, plan_only=plan_only)
    colouring = sparsity.colouring
    rows, columns = colouring.pattern.shape
    display.say(
        f"sparse {job.operation} of {job.function.reference}: {rows} rows x {columns} columns, "
        f"{colouring.pattern.entries} entries ({sparsity.reason}), {colouring.colours} products by "
        f"{colouring.kind} colouring"
    )
    status = StatusFile(job.paths.status)
    with _telling(status):
        status.update(
            state="running",
            operation=job.operation,
            function=job.function.reference,
            fingerprint=job.fingerprint,
            shape=[rows, columns],
        )
        products = [
            execute(each, display, plan_only=plan_only, is_part=True)
            for each in sparse.compressed_jobs(job, colouring)
        ]
        if plan_only:
            return job.paths.result
        if job.shard is not None:
            status.update(state="finished", message="")
            display.say(
                "the products of this shard are finished; when all are, python -m outputs.merge "
                f"puts those of {', '.join(str(each.parent.parent) for each in products)} together "
                "as result.h5 there, and the same command without shard= assembles the matrix"
            )
            display.say(str(products[-1]))
            return products[-1]
        facts = sparse.assemble(job, sparsity, products)
        status.update(state="finished", message="", verification=facts["verified"])
    display.outcome(facts, str(job.paths.result))
    return job.paths.result


@contextmanager
def _clear_failures() -> Iterator[None]:
    try:
        yield
    except ResultError as error:
        raise JobError(str(error)) from error
    except MemoryError as error:
        raise JobError(
            "out of memory while blocks were written; what was computed is kept, and the same "
            "command goes on: with a smaller memory=... or where more is free"
        ) from error


@contextmanager
def _telling(status: StatusFile) -> Iterator[None]:
    """Tell watchers how a job failed, unless another process runs it."""
    try:
        yield
    except BeingWrittenError:
        raise
    except KeyboardInterrupt:
        status.update(state="interrupted", message="interrupted")
        raise
    except BaseException as error:
        if is_of_launcher(error):
            status.update(state="interrupted", message="ended by the launcher")
            raise
        status.update(state="failed", message=str(error) or type(error).__name__)
        raise


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


def prepare(job: Job, target: Path, status: StatusFile | None = None) -> Prepared:
    """Decide how a job is computed, by short probes, and plan it; no result is written.

    What its blocks will be held against is computed here too: it tells whether a Hessian is
    symmetric, and so the axis.

    Args:
        job: The job.
        target: The file.
        status: Is told which chunk size is being tried: the system may kill the process for it.

    Raises:
        JobError: The job cannot be computed, or not within its memory.
    """
    strategy, axis, missing = job.strategy, None, None
    if part_path(target).exists():
        with open_result(target, allow_partial=True) as begun:
            # What was begun is gone on with, whatever would be chosen today.
            if begun.fingerprint == job.fingerprint:
                strategy, axis = begun.strategy, begun.axis
            missing = int((~begun.mask).sum())
    budget = memory_budget(job.memory, job.device, len(job.devices))
    limit = _chunk_limit(job)

    def tell(chunk_size: int) -> None:
        if status is not None:
            status.update(state="planned", chunk_size=chunk_size)

    with git_commit(job) as commit, _threads(threads_of_a_worker(job.devices)):
        decision = decide(job, budget, strategy=strategy, chunk_limit=limit, tell=tell)
        # First, for it refuses what is no derivative.
        description = describe(job, decision.stream, decision.strategy, commit())
        decision, proof = rows_by_symmetry(job, decision, _proof(job, decision.stream), axis)
        description = replace(
            description, axis=decision.stream.axis, block_lines=decision.chunk_size
        )
        lines = description.lines if missing is None else missing
        plan = make_plan(job, decision, description, budget, target, lines)
    stream = decision.stream
    facts = StreamFacts.of(stream)
    return Prepared(job, target, budget, decision, proof, description, plan, stream, facts, limit)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """What is measured for workers is measured with as many threads as they will have."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chunk_limit(job: Job) -> int | None:
    """Half the chunk size at which the system killed this job for want of memory, if it did.

    Raises:
        JobError: It was killed with one line at a time, or before it computed.
    """
    killed = os.environ.get(KILLED_PROCESS)
    if killed is None:
        return None
    status = read_status(job.paths.status)
    chunk_size = status.get("chunk_size")
    if str(status.get("pid")) != killed or not isinstance(chunk_size, int) or chunk_size < 2:
        raise JobError(
            "the system killed this job because no memory was free, with one row or column at a "
            "time; what was computed is kept. A smaller dtype takes less memory"
        )
    return chunk_size // 2


def _run(prepared: Prepared, status: StatusFile, display: Display) -> dict[str, str]:
    """Compute, prove and write what is missing; gives the facts for people."""
    job, decision, axis = prepared.job, prepared.decision, prepared.facts.axis
    proof = prepared.proof
    record = Record(NonFinite(job.nonfinite), display.say)
    for fallback in decision.fallbacks:
        record.note(fallback)
    if prepared.chunk_limit is not None:
        record.note(
            "the system killed the job for want of memory; going on with at most "
            f"{prepared.chunk_limit} {axis} at a time"
        )
    chunks = ChunkSize(
        decision.chunk_size, prepared.budget, record.note, largest=decision.largest_chunk
    )
    description = replace(prepared.description, probes=proof.probes())
    forget_peak()
    with (
        _writer(prepared.target, description, job.fsync) as writer,
        _source(prepared, proof, record) as source,
    ):
        if writer.damaged:
            damaged = ", ".join(f"{start} to {stop}" for start, stop in writer.damaged)
            record.note(f"{axis} {damaged} were damaged on the disk and are computed again")
        status.update(state="running", **_status_facts(prepared))
        _compute(prepared, source, writer, chunks, record, proof, status, display)
        writer.finish(_execution(prepared, source, chunks, record, proof))
    return _facts(prepared, record, proof)


@contextmanager
def _source(prepared: Prepared, proof: Proof, record: Record) -> Iterator[Source]:
    """Where blocks come from: this process, or one for each of several devices."""
    job, decision, facts = prepared.job, prepared.decision, prepared.facts
    if prepared.stream is not None:
        yield LocalSource(job, prepared.stream, proof)
        return
    stored = np.dtype(prepared.description.dtype)
    with WorkerPool(
        job,
        job.devices,
        facts,
        decision.strategy,
        decision.engine,
        stored,
        decision.chunk_size,
        proof,
        record.note,
    ) as pool:
        yield pool


@contextmanager
def _writer(
    target: Path, description: ResultDescription, fsync: Literal["block", "end"]
) -> Iterator[ResultWriter]:
    """A writer that goes on where an earlier one stopped.

    A new file that ends without a single block is removed again: it holds nothing to keep, and
    reserves space on the disk.
    """
    part = part_path(target)
    is_new = True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = ResultWriter.create(target, description, fsync=fsync)
    except ResultExistsError:
        # Also where another process was faster just now: resuming names it.
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


def _proof(job: Job, stream: Any) -> Proof:
    try:
        with explaining_failures(job.function):
            return prepare_proof(job, stream)
    except OutOfMemoryError as error:
        raise JobError(
            f"out of memory while the products for the proof were computed ({error}); "
            "verify=off does without them, memory=... with a smaller value leaves more room"
        ) from error


def _compute(
    prepared: Prepared,
    source: Source,
    writer: ResultWriter,
    chunks: ChunkSize,
    record: Record,
    proof: Proof,
    status: StatusFile,
    display: Display,
) -> None:
    facts = prepared.facts
    missing = writer.missing()
    total = sum(map(len, missing))
    lines = prepared.description.lines
    started = time.monotonic()
    with (
        BackgroundWriter(writer, shares_cores=source.shares_cores) as background,
        display.progress(total, facts.axis) as advance,
        leaving_after_a_block() as leave,
        # Closed first, also where a block cannot be written: nothing is computed in vain.
        closing(source.blocks(Remaining(missing, chunks, facts), leave.is_asked)) as blocks,
    ):
        for block in blocks:
            for fallback in block.fallbacks:
                record.note(fallback)
            proof.record(block.start, block.stop, block.error)
            record.nonfinite.record(f"{facts.axis} {block.start} to {block.stop}", block.not_finite)
            background.submit(block.start, block.stop, block.values, block.written)
            record.lines += block.stop - block.start
            record.seconds = time.monotonic() - started
            advance(block.stop - block.start)
            done = lines - total + record.lines
            status.progress(done, lines, record.lines, record.seconds)
        leave.take()
    record.seconds = time.monotonic() - started


def _execution(
    prepared: Prepared, source: Source, chunks: ChunkSize, record: Record, proof: Proof
) -> dict[str, Any]:
    job, plan = prepared.job, prepared.plan
    return {
        "chunk_size": chunks.size,
        "chunk_sizes": chunks.used,
        "device": device_name(job.device),
        **source.figures(),
        **({"dense_because": job.dense_reason} if job.dense_reason else {}),
        "lines_computed": record.lines,
        "lines_resumed": plan.lines - record.lines,
        "seconds": record.seconds,
        "peak_memory_bytes": peak_memory(job.device),
        "fallbacks": record.fallbacks,
        "nonfinite": record.nonfinite.figures(),
        "verification": proof.figures(),
        "plan": {
            "strategy_reason": plan.strategy_reason,
            "chunk_reason": plan.chunk_reason,
            "memory_budget_bytes": plan.memory_budget,
            "predicted_peak_bytes": plan.peak_bytes,
            "predicted_seconds": plan.seconds,
            "probing_seconds": prepared.decision.probing_seconds,
        },
    }


def _status_facts(prepared: Prepared) -> dict[str, Any]:
    job, plan = prepared.job, prepared.plan
    return {
        "operation": job.operation,
        "strategy": plan.strategy,
        "function": job.function.reference,
        "fingerprint": job.fingerprint,
        "device": plan.device,
        "axis": plan.axis,
        "shape": [plan.rows, plan.columns],
        "dtype": plan.dtype,
        "lines": plan.lines,
        "lines_done": plan.lines - plan.missing,
        "chunk_size": plan.chunk_size,
        "message": "",
    }


def _facts(prepared: Prepared, record: Record, proof: Proof) -> dict[str, str]:
    job, plan = prepared.job, prepared.plan
    across = plan.columns if plan.axis == "rows" else plan.rows
    rate = record.lines * across * plan.itemsize / max(record.seconds, 1e-9)
    facts = {
        "matrix": f"/{job.operation}, {plan.extent}",
        "time": f"{duration(record.seconds)}, {size(round(rate))}/s",
        "memory": f"{size(peak_memory(job.device))} at most, {size(plan.peak_bytes)} predicted",
        "verified": str(proof),
    }
    if record.nonfinite.count:
        row, column = record.nonfinite.first[0]
        facts["not finite"] = (
            f"{record.nonfinite.count} entries, first at row {row}, column {column}"
        )
    return facts
