"""Measure a candidate in chunks of growing size, as long as larger ones may pay."""

from __future__ import annotations

import sys
from dataclasses import replace

from jobs.machine.measurement import measuring, timing
from jobs.planning.candidate import UNDECIDED, Candidate, Growth, Search
from jobs.planning.cost import LADDER, Costs, Trial
from jobs.planning.repetition import is_far_behind, is_measured_again, is_worse, run_keeps
from jobs.planning.trials import measure_chunk
from jobs.records.announcements import trying_strategy
from jobs.streams.curvature import CurvatureStream
from jobs.streams.curvature_blocks import CurvatureBlocksStream
from jobs.streams.kept import kept_lines


def start_growth(search: Search, candidate: Candidate, costs: Costs) -> None:
    """Let the growth of a candidate begin anew, with the chunk sizes that are worth measuring."""
    sizes, stream = _sizes(search, candidate, costs), candidate.opened
    if isinstance(stream, CurvatureStream | CurvatureBlocksStream):
        sizes = [each for each in sizes if each >= stream.fewest_worth_measuring] or sizes[-1:]
    candidate.growth = Growth(costs, sizes)


def grow(search: Search, candidate: Candidate, remaining: int) -> None:
    """Measure chunks of growing size until they get slower, too large, or time is up.

    Args:
        search: The search.
        candidate: The candidate; its stream is open.
        remaining: How many strategies share the time that is left, this one included.
    """
    growth = candidate.growth
    assert growth is not None
    if not growth.costs.lines or 0 in candidate.opened.shape:
        candidate.costs = growth.costs.with_trial(Trial(1, 0.0, 0))
        return
    if not growth.costs.trials:
        # A line tells whether to record: a whole chunk of the plain engine is of no other use.
        line = growth.costs.smallest
        decides = candidate.recording == UNDECIDED and line < growth.sizes[0]
        first = line if decides else growth.sizes.pop(0)
        _measure_size(search, candidate, growth, first, remaining)
    if candidate.recording == UNDECIDED:
        if not search.affords_recording(candidate):
            candidate.recording = "not recorded in so short a run"
            if search.has_recorded and search.job.chunk_size is None:
                return  # batches of the plain engine seldom catch up with a recorded program
        elif remaining > 1 and (_is_small(search) or _gives_way(search, candidate, growth)):
            return
        else:
            _decide_on_recording(search, candidate, growth, remaining)
    while growth.sizes:
        chunk_size = growth.sizes[0]
        if growth.costs.trials:
            if not _is_worth_trying(search, candidate, growth, chunk_size, remaining):
                _measure_memory(search, candidate, growth, remaining)
                return
            if remaining > 1 and _can_wait(search, growth.costs, chunk_size):
                return
        _measure_next(search, candidate, growth, remaining)


def _measure_next(search: Search, candidate: Candidate, growth: Growth, remaining: int) -> None:
    """Measure the next larger chunk, and no more of them after several that were worse."""
    _measure_size(search, candidate, growth, growth.sizes.pop(0), remaining)
    # Where other work occupies a core, chunks that are just large enough for several threads
    # are slow, and still larger ones are not: a single worse chunk does not end the growth.
    trials = growth.costs.trials
    growth.worse = growth.worse + 1 if is_worse(trials[-1], trials, search.thresholds.worse) else 0
    if growth.worse == search.thresholds.worse_in_a_row:
        growth.sizes.clear()


def _decide_on_recording(
    search: Search, candidate: Candidate, growth: Growth, remaining: int
) -> None:
    """Record if that takes a small share of the run in batches of the plain engine.

    Batches of that engine, which may make recording needless, are measured as long as the next one
    takes less time than recording. Where another strategy is recorded, its run is the one that
    counts. In a run so long that recording takes a small share in any case, a first batch tells
    whether to compare the plain engine with the recorded program afterwards.
    """
    limits = search.thresholds
    while growth.sizes and search.job.chunk_size is None and not search.has_recorded:
        chunk_size, last = growth.sizes[0], growth.costs.trials[-1]
        is_first = len(growth.costs.trials) == 1
        recording = search.seconds_to_record(candidate)
        is_long = recording <= limits.share * search.run_seconds
        # The first batch is verified, besides.
        lines = chunk_size + limits.lines_to_verify * is_first
        if (is_long and not is_first) or last.spent_on(lines) > recording:
            break
        if not _is_worth_trying(search, candidate, growth, chunk_size, remaining):
            break
        _measure_next(search, candidate, growth, remaining)
    if not search.affords_recording(candidate):
        candidate.recording = "not recorded in so short a run"
        return
    best = growth.costs.best_chunk(search.budget.bytes) or 1
    line = growth.costs.trials[0].peak_bytes - search.occupied
    candidate.let_record()
    growth.worse = 0
    growth.costs = replace(growth.costs, trials=(), first_seconds=0.0)
    sizes = _sizes(search, candidate, growth.costs)
    if sizes[:2] == [1, LADDER] and LADDER * line <= search.budget.bytes - search.occupied:
        del sizes[0]  # a program for one line at a time never pays; it may take less memory
    # Smaller chunks of a recorded program pay no more than those of the plain engine, or of the
    # other strategy, which takes about as much memory.
    best = max([best, *_sizes_of_others(search, candidate)])
    growth.sizes = [each for each in sizes if LADDER * each >= best] or sizes[-1:]


def _sizes_of_others(search: Search, candidate: Candidate) -> list[int]:
    """Return the best chunk size of each recorded program, where memory is no concern."""
    memory = search.budget.bytes // LADDER
    sizes = [
        other.measured.best_chunk(memory)
        for other in search.measured
        if other is not candidate and other.plain is not None
    ]
    return [size for size in sizes if size]


def _measure_memory(search: Search, candidate: Candidate, growth: Growth, remaining: int) -> None:
    """Measure a second size, where a chunk that is asked for is not tried, to predict its memory.

    It is the largest for which there is time, because the memory of a few lines says little.
    """
    costs = growth.costs
    if search.job.chunk_size is None or len(costs.trials) > 1 or costs.is_loop:
        return
    asked = growth.sizes[-1]
    sizes = [size for size in costs.ladder() if costs.smallest < size < asked] or [asked]
    affordable = [
        size for size in sizes if search.affords(size * costs.line_seconds(size), remaining)
    ]
    _measure_size(search, candidate, growth, (affordable or sizes[:1])[-1], remaining)


def _can_wait(search: Search, costs: Costs, chunk_size: int) -> bool:
    """Return whether to measure another strategy first, because this step takes at least as long.

    This candidate has to stay open meanwhile.
    """
    limits, line = search.thresholds, costs.line_seconds(costs.smallest)
    seconds = limits.repetitions * chunk_size * costs.line_seconds(chunk_size)
    return seconds >= max(limits.lines_to_open * line, costs.first_seconds) and _is_small(search)


def _gives_way(search: Search, candidate: Candidate, growth: Growth) -> bool:
    """Return whether a strategy is far behind another, which is then recorded alone.

    It holds too much memory to stay open meanwhile.
    """
    is_behind = is_far_behind(search, candidate, growth.costs)
    if is_behind:
        candidate.recording = "not recorded, far behind"
        candidate.stream = None
    return is_behind


def _is_small(search: Search) -> bool:
    """Return whether open streams hold so little memory that they stay open meanwhile."""
    return search.held_bytes <= search.thresholds.share_to_keep * search.budget.bytes


def _measure_size(
    search: Search, candidate: Candidate, growth: Growth, chunk_size: int, remaining: int
) -> None:
    """Measure chunks of one size; of several the fastest counts."""
    limits, looks = search.thresholds, list[float]()
    search.tell(candidate.strategy, chunk_size)
    measured = f"({candidate.opened.engine} engine) was measured with {chunk_size} at a time"
    trying_strategy(search.job, candidate.strategy, measured, chunk_size)
    # One more where the last of them has prepared for the next.
    for repetition in range(limits.repetitions + 1):
        costs, loaded = growth.costs, len(sys.modules)
        is_smallest = len(costs.trials) <= 1 and chunk_size == costs.smallest
        by = measuring if repetition == 0 or is_smallest else timing
        trial = measure_chunk(search.job, candidate, chunk_size, by, repetition)
        search.computed += trial.spent
        search.waited += trial.waited
        has_loaded = len(sys.modules) > loaded
        if has_loaded and repetition == 0 and trial.seconds < limits.loading_seconds:
            opening_bytes = max(costs.opening_bytes, trial.peak_bytes)
            growth.costs = replace(costs, opening_bytes=opening_bytes)
            continue
        before = costs
        if not costs.trials:
            costs = replace(costs, opening_bytes=max(costs.opening_bytes, trial.peak_bytes))
        # Verifying batches, and recording, happen once.
        happens_once = candidate.opened.engine == "plain" or not before.trials
        costs = costs.with_trial(replace(trial, preparing=0.0) if happens_once else trial)
        looks.append(trial.seconds)
        if chunk_size == 1:
            costs = costs.with_first(looks[0])
        growth.costs = candidate.costs = costs
        if len(looks) == 2 and chunk_size > costs.smallest and not trial.preparing:
            longer = looks[0] / max(looks[1], sys.float_info.min)
            growth.first_of_a_size = max(growth.first_of_a_size or 0.0, longer)
        is_last = not is_measured_again(search, candidate, trial, before, repetition, remaining)
        # What opens a strategy, tells whether to record, and records leaves the time for chunks.
        if candidate.recording != UNDECIDED and len(costs.trials) > 1:
            search.spent += trial.preparing if is_last else _lost(search, candidate, trial)
        if is_last:
            break


def _lost(search: Search, candidate: Candidate, trial: Trial) -> float:
    """Return the seconds of a trial that its block does not save the run."""
    if not run_keeps(search, candidate):
        return trial.spent
    lines = min(trial.chunk_size, candidate.measured.lines)
    line = min(each.line_seconds for each in candidate.measured.trials)
    return max(0.0, trial.spent - lines * line)


def _sizes(search: Search, candidate: Candidate, costs: Costs) -> list[int]:
    """Return the chunk sizes that are worth measuring, in ascending order."""
    if search.limit is None:
        return costs.ladder() if not costs.is_loop else costs.ladder()[:2]
    given = max(1, min(search.limit, costs.lines))
    if costs.unit > 1:
        given = max(costs.smallest, given - given % costs.unit if given > costs.unit else given)
    if search.job.chunk_size is not None:
        # The run need not compute the lines that were measured. Where memory runs out, fewer lines
        # tell what is needed.
        is_short = given <= search.thresholds.share * costs.lines and not candidate.ran_out
        if is_short and not search.has_choice and not costs.is_loop:
            return [given]
        return sorted({costs.smallest, given})
    return [each for each in costs.ladder() if each < given] + [given]


def _is_worth_trying(
    search: Search, candidate: Candidate, growth: Growth, chunk_size: int, remaining: int
) -> bool:
    costs = growth.costs
    smaller = costs.trials[-1]
    seconds = smaller.spent_on(chunk_size)
    is_kept = candidate.costs is not None and run_keeps(search, candidate)
    return (
        costs.fits(chunk_size, search.budget.bytes)
        and search.affords(seconds, remaining, is_kept=is_kept)
        and _promises_more(search, candidate, costs, seconds, is_kept=is_kept)
        and not is_far_behind(search, candidate, costs)
        and not was_better_in(search, candidate, smaller.chunk_size)
    )


def was_better_in(search: Search, candidate: Candidate, size: int) -> bool:
    """Return whether no larger chunk paid for another strategy: both modes have similar results."""
    for other in search.measured:
        if other is candidate or other.engine != candidate.engine:
            continue
        taken = {t.chunk_size: other.measured.seconds(t.chunk_size) for t in other.measured.trials}
        larger = [seconds for each, seconds in taken.items() if each > size]
        if size in taken and larger and taken[size] < min(larger):
            return True
    return False


def _promises_more(
    search: Search, candidate: Candidate, costs: Costs, seconds: float, *, is_kept: bool
) -> bool:
    """Return whether a larger chunk may well save the time that it takes to measure it.

    A chunk that the run keeps takes no time of its own, but larger ones take memory: they have to
    save as much as makes a size the choice. And the chunks that are kept of the size before are
    computed anew.
    """
    limits, best, smaller = search.thresholds, search.run_seconds, costs.trials[-1]
    small = limits.share * best
    cost = repeated = limits.repetitions * seconds
    if is_kept:
        lost = sum(map(len, kept_lines(candidate.stream))) * smaller.line_seconds
        cost = max(min(repeated, small), lost if lost > limits.brief_seconds else 0.0)
    # A recorded program has been paid for.
    is_free = candidate.plain is not None and search.has_choice
    anyway = limits.seconds_anyway - search.spent if is_free else 0.0
    return repeated <= max(small, anyway) or best - costs.promised_seconds >= cost
