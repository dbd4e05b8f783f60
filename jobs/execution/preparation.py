"""Prepare a job: choose strategy and chunk size, compute probe products, make the plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from jobs.errors import JobError, OutOfMemoryError
from jobs.execution.begun import SEPARATOR, Begun
from jobs.functions.evaluation import evaluated
from jobs.functions.failures import explaining_failures
from jobs.functions.reductions import require_reduction
from jobs.functions.returned_values import named_outputs
from jobs.job import Job
from jobs.machine.activity import deaths_of
from jobs.machine.devices import threads_of_a_worker
from jobs.machine.memory import Budget, memory_budget
from jobs.planning.decision import Decision
from jobs.planning.plan import Plan
from jobs.planning.prediction import make_plan
from jobs.planning.search import decide
from jobs.planning.symmetry import rows_by_symmetry
from jobs.records.announcements import trying
from jobs.records.description import describe, stored_axis
from jobs.records.provenance import git_commit
from jobs.records.status_file import StatusFile
from jobs.streams.stream import Stream, StreamFacts
from jobs.verification.check import Check
from jobs.verification.comparison import Comparison
from jobs.verification.differences import differences_of_job
from jobs.verification.precision import observing, with_observed
from jobs.verification.routes import Routes
from jobs.verification.selection import prepare_check
from outputs import Probes, ResultDescription


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
        begun: What an earlier start left of the result; None if nothing is resumed.
        earlier_probes: What the blocks of earlier starts are compared with; None where no other
            route gives it.
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
    begun: Begun | None = None
    earlier_probes: Probes | None = None

    @property
    def is_begun_anew(self) -> bool:
        """Whether what was begun is of no use, because it has blocks of the other axis."""
        return self.begun is not None and self.begun.axis != self.description.axis

    @property
    def strategies(self) -> str:
        """The names of the strategies that have computed and will compute the result."""
        earlier = self.begun.strategies if self.begun and not self.is_begun_anew else ()
        return SEPARATOR.join(dict.fromkeys([*earlier, self.decision.strategy]))


def _is_left_out(job: Job, strategy: str) -> bool:
    return job.strategy == "auto" and strategy in job.excluded


def prepare(
    job: Job, target: Path, status: StatusFile | None = None, begun: Begun | None = None
) -> Prepared:
    """Decide how a job is computed, by short trial chunks, and plan it; no result is written.

    The products that its blocks will be compared with are computed here too: they show whether a
    Hessian is symmetric, which determines the axis.

    Args:
        job: The job.
        target: The path of the file that would be written.
        status: Updated with each strategy and chunk size before they are tried; None writes no
            status.
        begun: What an earlier start left unfinished; None if there is nothing.

    Raises:
        JobError: The job cannot be computed, or not within its memory.
    """
    # What was begun is resumed, whatever would be chosen today, unless that strategy is left out.
    resumed = None if begun is None or _is_left_out(job, begun.strategies[-1]) else begun
    strategy, axis = (resumed.strategies[-1], resumed.axis) if resumed else (job.strategy, None)
    budget = memory_budget(job.memory, job.device, len(job.devices))
    limit = _chunk_limit(job)

    def tell(strategy: str, chunk_size: int) -> None:
        if status is not None:
            status.update(state="planned", strategy=strategy, chunk_size=chunk_size)

    with git_commit(job) as commit, _threads(threads_of_a_worker(job.devices)):
        require_reduction(job.function.function, job.first_point, job.seed)
        with _outputs_examined(job):
            observed, function = observing(job)
            decision = decide(observed, budget, strategy=strategy, chunk_limit=limit, tell=tell)
        if function is not None and function.found is not None:
            job = with_observed(job, function.found)
        # Before the check, because it refuses what is no derivative.
        description = describe(job, decision.stream, decision.strategy, commit())
        routes = Routes(job, decision.stream.value, decision.strategy, decision.stream)
        # Before the products of the check, which come from routes that are not found wrong.
        differences = differences_of_job(job, routes)
        job = routes.with_observed()
        check = _check(job, decision.stream, routes)
        probes = check.probes() or (_earlier_probes(job, decision.stream) if begun else None)
        routes.evaluations.forget()
        decision, check = rows_by_symmetry(job, decision, check, axis)
        description = replace(
            description,
            axis=stored_axis(job, decision.stream),
            block_lines=decision.chunk_size,
        )
        is_kept = begun is not None and begun.axis == description.axis
        lines = begun.missing if begun is not None and is_kept else description.lines
        plan = make_plan(job, decision, description, budget, target, lines)
    trying(job, "the computation was begun", chunk_size=decision.chunk_size)
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
        begun,
        probes,
    )


@contextmanager
def _outputs_examined(job: Job) -> Iterator[None]:
    """When the body fails, say first what is wrong with what the function returns.

    Raises:
        ConfigurationError: The function returns what no strategy can differentiate.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception:
        try:
            value = evaluated(job.function.function, job.first_point, job.seed)
        except KeyboardInterrupt:
            raise
        # What the function raises itself is what the body has failed of.
        except BaseException:
            pass
        else:
            named_outputs(job.function, value)
        raise


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
    """Return half the chunk size at which the system killed this job for lack of memory, if any."""
    killed = [each.activity for each in deaths_of(str(job.paths.status)) if each.is_for_memory]
    sizes = [each.chunk_size // 2 for each in killed if each and each.chunk_size]
    return min(sizes, default=None)


def _earlier_probes(job: Job, stream: Stream) -> Probes | None:
    """Return what blocks of earlier starts are compared with where others are not."""
    with suppress(JobError, RuntimeError, NotImplementedError):
        return prepare_check(replace(job, verify="probe", differences=False), stream).probes()
    return None


def _check(job: Job, stream: Stream, routes: Routes) -> Check:
    try:
        with explaining_failures(job.function):
            return prepare_check(job, stream, routes)
    except OutOfMemoryError as error:
        raise JobError(
            f"out of memory while the products for the check were computed ({error}); "
            "verify=off does without them, memory=... with a smaller value leaves more room"
        ) from error
