"""Choose the chunk size of a measured candidate."""

from __future__ import annotations

import math

from jobs.errors import JobError
from jobs.machine.memory import Budget
from jobs.planning.candidate import Candidate, Search
from jobs.planning.cost import LADDER, even_chunk
from jobs.planning.growth import was_better_in
from jobs.streams.kept import kept_lines
from jobs.units import size


def choose_chunk(search: Search, candidate: Candidate) -> tuple[int, str]:
    """Return the chunk size of a candidate, and the reason for it in words.

    Raises:
        JobError: The requested chunk size, or a single line, does not fit into the budget.
    """
    costs, budget, job = candidate.measured, search.budget, search.job
    if job.chunk_size is not None and job.chunk_size == search.limit:
        return _requested(candidate, job.chunk_size, budget), "as requested"
    best = costs.best_chunk(budget.bytes)
    if best is None:
        raise too_large(budget, costs.peak_bytes(1))
    workers, is_kept = len(job.devices), range(costs.lines) in kept_lines(candidate.stream)
    # Workers open streams of their own, which keep nothing.
    if workers == 1 and is_kept and costs.fits(costs.lines, budget.bytes):
        return costs.lines, "the whole matrix was computed to measure it"
    best = min(best, search.limit or best)
    if workers > 1:
        most = search.thresholds.chunks_of_a_worker * workers
        best = min(best, math.ceil(costs.lines / most))
    chunk_size = even_chunk(best, costs.lines, costs.unit)
    largest = costs.trials[-1].chunk_size
    reason = f"the fastest of those measured, up to {largest}"
    if costs.is_loop:
        reason = "large enough for the disk; lines are computed one by one"
    elif chunk_size == largest < costs.lines and not costs.fits(LADDER * largest, budget.bytes):
        reason = f"the largest within {size(budget.bytes)}"
    return chunk_size, reason


def _requested(candidate: Candidate, chunk_size: int, budget: Budget) -> int:
    needed = candidate.measured.peak_bytes(chunk_size)
    if needed > budget.bytes:
        raise JobError(
            f"chunk_size={chunk_size} needs about {size(needed)} and the memory budget is "
            f"{size(budget.bytes)} ({budget.reason}); chunk_size=auto finds one that fits, "
            "memory= grants more"
        )
    return chunk_size


def largest_chunk(search: Search, candidate: Candidate, chunk_size: int) -> int:
    """Return how large chunks may become in the run, which tries what was not measured."""
    peak_bytes = candidate.measured.peak_bytes(chunk_size)
    while (larger := _larger(search, candidate, chunk_size, peak_bytes)) > chunk_size:
        chunk_size = larger
    return chunk_size


def _larger(search: Search, candidate: Candidate, chunk_size: int, peak_bytes: int) -> int:
    """Return the next larger chunk size that may be taken without a measurement, or the same.

    A larger one may be taken where no time was left to measure it: on a CPU, in this process, and
    without a higher peak of memory than the plan shows.
    """
    costs, job = candidate.measured, search.job
    is_open = costs.trials[-1].chunk_size <= chunk_size < costs.lines and search.limit is None
    is_here = job.device.type == "cpu" and len(job.devices) == 1
    is_limited = candidate.ran_out or costs.is_loop or costs.unit > 1
    if not (is_open and is_here) or is_limited or was_better_in(search, candidate, chunk_size):
        return chunk_size
    larger = min(LADDER * chunk_size, costs.lines)
    most = (1 + search.thresholds.share_of_peak) * peak_bytes
    is_within = costs.peak_bytes(larger) <= most and costs.fits(larger, search.budget.bytes)
    return larger if is_within else chunk_size


def too_large(budget: Budget, needed: int | None = None) -> JobError:
    """Return the error that not even one line fits into the budget.

    Args:
        budget: The memory budget.
        needed: Bytes that one line needs; None where they are not known.
    """
    need = f"about {size(needed)}" if needed else f"more than {size(budget.bytes)}"
    return JobError(
        f"one row or column at a time needs {need} of memory, and the budget is "
        f"{size(budget.bytes)} ({budget.reason}); memory=... grants more, a smaller dtype, "
        "fewer variables (wrt.pattern=...) or samples at once (loss.batch_size=...) take less"
    )
