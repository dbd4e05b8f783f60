"""Prepare a job: choose strategy and chunk size, compute probe products, make the plan."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from jobs.errors import JobError, OutOfMemoryError
from jobs.functions.failures import explaining_failures
from jobs.job import Job
from jobs.machine.devices import threads_of_a_worker
from jobs.machine.memory import Budget, memory_budget
from jobs.machine.supervision import KILLED_PROCESS
from jobs.planning.decision import Decision
from jobs.planning.plan import Plan
from jobs.planning.prediction import make_plan
from jobs.planning.search import decide
from jobs.planning.symmetry import rows_by_symmetry
from jobs.records.description import describe
from jobs.records.provenance import git_commit
from jobs.records.status_file import JobStatus, StatusFile
from jobs.streams.stream import Stream, StreamFacts
from jobs.verification.check import Check
from jobs.verification.differences import Comparison, compare_with_differences
from jobs.verification.routes import Routes
from jobs.verification.selection import prepare_check
from outputs import Axis, ResultDescription, open_result, part_path


@dataclass(frozen=True)
class Prepared:
    """Everything that is decided before the first block is computed.

    Attributes:
        job: The job.
        target: The path of the file that is written.
        budget: The memory that the job may use.
        decision: How it is computed.
        check: The check of its blocks.
        differences: How the derivative compares with finite differences of the function.
        description: What the file says of the job.
        plan: The plan that the user sees.
        stream: The stream of blocks; None where other processes compute them.
        facts: What this process knows of the stream in either case.
        chunk_limit: Half the chunk size at which the system killed the job; None if it did not.
    """

    job: Job
    target: Path
    budget: Budget
    decision: Decision
    check: Check
    differences: tuple[Comparison, ...]
    description: ResultDescription
    plan: Plan
    stream: Stream | None
    facts: StreamFacts
    chunk_limit: int | None


def prepare(job: Job, target: Path, status: StatusFile | None = None) -> Prepared:
    """Decide how a job is computed, by short trial chunks, and plan it; no result is written.

    The products that its blocks will be compared with are computed here too: they show whether a
    Hessian is symmetric, which determines the axis.

    Args:
        job: The job.
        target: The path of the file that would be written.
        status: Updated with each chunk size before it is tried, for which the system may kill the
            process; None writes no status.

    Raises:
        JobError: The job cannot be computed, or not within its memory.
    """
    strategy, axis, missing = job.strategy, None, None
    if part_path(target).exists():
        with open_result(target, allow_partial=True) as begun:
            # What was begun is resumed, whatever would be chosen today.
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
        # Before the check, because it refuses what is no derivative.
        description = describe(job, decision.stream, decision.strategy, commit())
        routes = Routes(job, decision.stream.value, decision.strategy)
        # Before the products of the check, which come from routes that are not found wrong.
        differences = _differences(job, routes)
        check = _check(job, decision.stream, routes)
        decision, check = rows_by_symmetry(job, decision, check, axis)
        description = replace(
            description, axis=Axis(decision.stream.axis), block_lines=decision.chunk_size
        )
        lines = description.lines if missing is None else missing
        plan = make_plan(job, decision, description, budget, target, lines)
    stream = decision.stream
    facts = StreamFacts.of(stream)
    return Prepared(
        job,
        target,
        budget,
        decision,
        check,
        differences,
        description,
        plan,
        stream,
        facts,
        limit,
    )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Measure for workers with as many threads as they will have; None changes nothing."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chunk_limit(job: Job) -> int | None:
    """Return half the chunk size at which the system killed this job for lack of memory, if any.

    Raises:
        JobError: It was killed with one line at a time, or before it computed.
    """
    killed = os.environ.get(KILLED_PROCESS)
    if killed is None:
        return None
    status = JobStatus.read(job.paths.status)
    chunk_size = status.other.get("chunk_size")
    if str(status.pid) != killed or not isinstance(chunk_size, int) or chunk_size < 2:
        raise JobError(
            "the system killed this job because no memory was free, with one row or column at a "
            "time; what was computed is kept. A smaller dtype takes less memory"
        )
    return chunk_size // 2


def _differences(job: Job, routes: Routes) -> tuple[Comparison, ...]:
    if not job.differences:
        return ()
    with explaining_failures(job.function):
        return compare_with_differences(job, routes)


def _check(job: Job, stream: Stream, routes: Routes) -> Check:
    try:
        with explaining_failures(job.function):
            return prepare_check(job, stream, routes)
    except OutOfMemoryError as error:
        raise JobError(
            f"out of memory while the products for the check were computed ({error}); "
            "verify=off does without them, memory=... with a smaller value leaves more room"
        ) from error
