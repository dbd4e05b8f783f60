"""Choose strategy and chunk size by short probes, within budgets of memory and of time.

One strategy after the other is opened and measured, in small chunks before large ones. Those that
hold little memory, and the last one, stay open: if one of them is chosen, its programs need not be
captured and verified twice. Others are closed before the next is opened, so that each measured peak
of memory is that of one alone.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from jobs.errors import JobError, OutOfMemoryError, culprit_of, failing_strategy
from jobs.job import Job
from jobs.machine.measurement import measuring, release_memory
from jobs.machine.memory import Budget, memory_in_use, within_device
from jobs.machine.warm_up import warm_up
from jobs.operations import OPERATIONS
from jobs.planning.candidate import UNDECIDED, Candidate, Search
from jobs.planning.chunk_choice import choose_chunk, largest_chunk, too_large
from jobs.planning.compilation import may_compile, try_compiling
from jobs.planning.cost import Costs
from jobs.planning.decision import Decision
from jobs.planning.engines import return_to_plain, try_plain
from jobs.planning.growth import grow, start_growth
from jobs.planning.thresholds import THRESHOLDS
from jobs.planning.trials import within_budget
from jobs.records.announcements import trying_strategy
from jobs.records.description import require_storage
from jobs.strategies import FORWARD, LOOPS, none_is_left, strategies_of
from jobs.streams.curvature import CurvatureStream
from jobs.streams.opening import open_job_stream
from jobs.streams.padded import PaddedStream
from jobs.streams.stream import Stream, stored_dtype

_logger = logging.getLogger(__name__)


def decide(
    job: Job,
    budget: Budget,
    *,
    strategy: str,
    chunk_limit: int | None = None,
    tell: Callable[[str, int], None] = lambda strategy, chunk_size: None,
) -> Decision:
    """Choose how to compute a job, by measuring what the user left open.

    Args:
        job: The job; what it excludes is not among the strategies of ``auto``.
        budget: The memory that it may use.
        strategy: The strategy, or ``auto``.
        chunk_limit: The largest chunk size that may be chosen; None for any.
        tell: Called with strategy and chunk size before they are tried.

    Raises:
        StrategyError: The strategy cannot differentiate the function.
        JobError: Not even one line fits into the budget, or no strategy can differentiate the
            function.
    """
    started = time.perf_counter()
    limit = chunk_limit or job.chunk_size
    search = Search(job, budget, limit, tell, THRESHOLDS, memory_in_use(job.device))
    warm_up()
    # Let the collector look at what the search makes, not at all modules each time. A command has
    # frozen them while they were loaded.
    if gc.get_freeze_count():
        return _decide(search, strategy, started)
    gc.freeze()
    try:
        return _decide(search, strategy, started)
    finally:
        gc.unfreeze()


def _decide(search: Search, strategy: str, started: float) -> Decision:
    with within_budget(search):
        if strategy == "auto":
            _measure_all(search)
        else:
            with failing_strategy(strategy):
                _measure(search, strategy, remaining=1)
    if not search.measured:
        raise _nothing_measured(search)
    chosen = search.fastest()
    returned = return_to_plain(search, chosen)
    chunk_size, chunk_reason = choose_chunk(search, chosen)
    reason = "as requested" if strategy != "auto" else _reason(search, chosen)
    if chosen.recording not in ("", UNDECIDED):
        reason += f"; {chosen.recording}"
    if returned:
        reason += f"; {returned}"
    with failing_strategy(chosen.strategy):
        if chosen.stream is not None and (note := try_plain(search, chosen, chunk_size)):
            reason += f"; {note}"
        _open_chosen(search, chosen)
        if may_compile(search, chosen, chunk_size):
            reason += f"; {try_compiling(search, chosen, chunk_size)}"
    return Decision(
        chosen.strategy,
        chosen.engine,
        chosen.opened,
        chunk_size,
        largest_chunk(search, chosen, chunk_size),
        chosen.measured,
        reason,
        chunk_reason,
        time.perf_counter() - started,
        tuple(chosen.fallbacks),
        search.waited / ((search.waited + search.computed) or 1.0),
    )


def _nothing_measured(search: Search) -> JobError:
    """Return the error that no strategy can compute the job."""
    excluded, tried = search.job.excluded, search.candidates.values()
    reasons = {name: excluded[name] for name in _all_strategies(search) if name in excluded}
    failures = {each.strategy: each.failure for each in tried if each.failure}
    if not reasons and not failures:
        return too_large(within_device(search.budget, search.job.device))
    notes = {each.strategy: each.note for each in tried if each.note}
    culprits = {each.strategy: each.culprit for each in tried if each.culprit}
    return JobError(none_is_left({**reasons, **notes, **failures}, culprits))


def _open_chosen(search: Search, chosen: Candidate) -> None:
    """Close all streams but that of the chosen candidate; open it anew if it is closed."""
    for other in search.candidates.values():
        if other is not chosen:
            other.stream = None
    if chosen.stream is not None:
        chosen.costs = replace(chosen.measured, first_seconds=0.0)
        return
    chosen.fallbacks.clear()
    release_memory()
    chosen.stream = open_job_stream(search.job, chosen.strategy, chosen.engine)


def _all_strategies(search: Search) -> tuple[str, ...]:
    return strategies_of(is_from_left=OPERATIONS[search.job.operation].is_from_left)


def _measure_all(search: Search) -> None:
    excluded = search.job.excluded
    pairs = [(each, LOOPS[each]) for each in _all_strategies(search) if each in LOOPS]
    usable = [[each for each in pair if each not in excluded] for pair in pairs]
    # The loop takes the place of a batched strategy that is excluded.
    best = [each[0] for each in usable if each]
    loops = [each[1] for each in usable if each[1:]]
    for strategy in best:
        _attempt(search, strategy, remaining=len(best))
    # A candidate that waited for the other one to be measured may still be the faster. The one that
    # is ahead is recorded first.
    for candidate in sorted(search.measured, key=lambda each: each.run_seconds):
        _attempt(search, candidate.strategy, remaining=1, continues=True)
    if not search.measured:
        for strategy in [each for each in best if search.candidate(each).note]:
            _attempt(search, strategy, remaining=1, even_if_hopeless=True)
    if search.measured:
        fastest = search.fastest()
        chunk_size = fastest.measured.best_chunk(search.budget.bytes)
        is_small = chunk_size is None or chunk_size <= search.thresholds.small_batch
        if is_small and not fastest.gains_by_recording and LOOPS.get(fastest.strategy) in loops:
            _attempt(search, LOOPS[fastest.strategy], remaining=1)
    for loop in map(search.candidate, loops):
        # A loop holds less memory than any batch.
        fits = any(each.fits(search.budget.bytes) for each in search.measured)
        if not fits and loop.costs is None and not loop.note:
            _attempt(search, loop.strategy, remaining=1, even_if_hopeless=True)


def _attempt(
    search: Search,
    strategy: str,
    *,
    remaining: int,
    even_if_hopeless: bool = False,
    continues: bool = False,
) -> None:
    """Measure a strategy, or continue to; note it where it cannot differentiate the function."""
    candidate = search.candidate(strategy)
    try:
        if continues:
            _resume(search, candidate)
        else:
            _measure(search, strategy, remaining=remaining, even_if_hopeless=even_if_hopeless)
    except JobError as error:
        _logger.info("strategy %s is left out: %s", strategy, error)
        candidate.note = "cannot differentiate this function"
        candidate.failure, candidate.culprit = str(error), culprit_of(error)
        # A smaller chunk that it could compute is no reason to choose it.
        candidate.stream, candidate.costs = None, None


def _measure(
    search: Search, strategy: str, *, remaining: int, even_if_hopeless: bool = True
) -> None:
    """Open a strategy and measure chunks of growing size.

    Args:
        search: The search.
        strategy: The strategy.
        remaining: How many strategies share the time that is left, this one included.
        even_if_hopeless: Whether it is measured although another needs far fewer passes, or
            there is no time to compare.
    """
    candidate = search.candidate(strategy)
    if not even_if_hopeless and search.shape is not None:
        rows, columns = search.shape
        passes, other = (columns, rows) if strategy in FORWARD else (rows, columns)
        if _is_hopeless(search, candidate, passes, other):
            return
    # A recorded program holds more memory than the plain engine does.
    for recording in (UNDECIDED, "not recorded, which does not fit into the memory"):
        candidate.stream, candidate.recording = None, recording
        _close_large_streams(search)
        try:
            _measure_strategy(search, candidate, remaining, even_if_hopeless)
            if candidate.costs is None or candidate.fits(search.budget.bytes):
                return
        except OutOfMemoryError:
            # A stream in which memory ran out is not used any more.
            candidate.stream = None
            candidate.ran_out = True
            if candidate.costs is not None:
                return
        if candidate.engine == "plain":
            break
    candidate.note = "not even one line fits into the memory"


def _measure_strategy(
    search: Search, candidate: Candidate, remaining: int, even_if_hopeless: bool
) -> None:
    """Open a strategy and measure it: the plain engine first, which needs no recording."""
    trying_strategy(search.job, candidate.strategy, "was opened")
    with measuring(search.job.device) as opening:
        stream = open_job_stream(search.job, candidate.strategy)
    candidate.engine = "plain"
    if stream.recorder is None:
        candidate.recording = ""
    else:
        stream.recorder.record(False)
    require_storage(search.job, stream.dtype)
    candidate.stream = stream
    candidate.fallbacks.clear()
    candidate.opening_seconds = opening.seconds
    candidate.line = stream.axis.removesuffix("s")
    search.shape = rows, columns = stream.rows.size, stream.columns.size
    other = columns if stream.passes == rows else rows
    if even_if_hopeless or not _is_hopeless(search, candidate, stream.passes, other):
        # This candidate gets all the time if the other one is not worth opening.
        remaining = 1 if _has_too_many_passes(search, other, stream.passes) else remaining
        costs = _costs(search.job, candidate.strategy, stream)
        start_growth(search, candidate, replace(costs, opening_bytes=opening.peak_bytes))
        grow(search, candidate, remaining)


def _costs(job: Job, strategy: str, stream: Stream) -> Costs:
    """Return the costs of a strategy of which nothing is measured yet."""
    itemsize = stored_dtype(job.storage or stream.dtype).itemsize
    return Costs(
        strategy,
        lines=stream.axis.lines(stream.shape),
        line_bytes=stream.axis.across(stream.shape) * itemsize,
        # At many points a line is computed for several of them at once.
        is_loop=strategy in LOOPS.values() and job.points is None,
        on_host=job.device.type == "cpu",
        unit=stream.unit,
        is_divisible=stream.is_divisible,
        largest=stream.unit if isinstance(stream, PaddedStream) and not stream.is_joint else None,
        share=stream.share if isinstance(stream, PaddedStream) else 1.0,
        opening_seconds=stream.opening_seconds if isinstance(stream, PaddedStream) else 0.0,
        has_long_blocks=isinstance(stream, CurvatureStream | PaddedStream)
        and stream.fewest_worth_measuring > 1,
    )


def _resume(search: Search, candidate: Candidate) -> None:
    """Measure larger chunks of a candidate that is still open."""
    if candidate.stream is None or candidate.costs is None:
        return
    try:
        grow(search, candidate, remaining=1)
    except OutOfMemoryError:
        candidate.stream = None
        candidate.ran_out = True


def _close_large_streams(search: Search) -> None:
    """Close open streams before another is measured, unless they hold next to nothing."""
    release_memory()
    if search.held_bytes > search.thresholds.share_to_keep * search.budget.bytes:
        for candidate in search.candidates.values():
            candidate.stream = None
        release_memory()


def _has_too_many_passes(search: Search, passes: int, other: int) -> bool:
    most = search.thresholds.hopeless * max(1, other)
    return search.job.operation == "jacobian" and passes > most


def _is_hopeless(search: Search, candidate: Candidate, passes: int, other: int) -> bool:
    """Return whether a strategy is not worth opening: too many passes, or too short a run."""
    lines = "columns" if candidate.strategy in FORWARD else "rows"
    if _has_too_many_passes(search, passes, other):
        candidate.note = f"not tried for its {passes} {lines}"
        return True
    if not search.measured:
        return False
    # What fell back to one vector at a time says nothing of the other strategy, in any run.
    if any("one vector at a time" in each for each in search.fastest().fallbacks):
        return False
    best = search.fastest().measured
    line = best.line_seconds(best.trials[0].chunk_size) * best.trials[0].share
    limits, evaluation = search.thresholds, search.fastest().opening_seconds
    opening = max(
        limits.lines_to_open * line, limits.evaluations_to_open * evaluation, best.first_seconds
    )
    if search.affords(opening, remaining=1, is_opening=True):
        return False
    candidate.note = "not tried in so short a run"
    return True


def _reason(search: Search, chosen: Candidate) -> str:
    """Return why a strategy was chosen: what was measured of each, and what was not."""
    text = f"{chosen.measured.lines} {chosen.line}s, measured {chosen.seconds_of_a_line}"
    for other in search.measured:
        if other is not chosen:
            text += f"; {other.strategy} {other.measured.lines} {other.line}s"
            text += f", {other.seconds_of_a_line}"
    for name in _all_strategies(search):
        if name in search.job.excluded:
            text += f"; {name} left out"
    for candidate in search.candidates.values():
        if candidate.note:
            text += f"; {candidate.strategy} {candidate.note}"
    return text
