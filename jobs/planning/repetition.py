"""Decide whether a chunk that was measured is measured again."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jobs.planning.candidate import UNDECIDED, Candidate, Search
from jobs.planning.cost import Costs, Trial
from jobs.planning.trials import lines_of_trial
from jobs.streams.kept import Keeping, kept_lines


def is_measured_again(
    search: Search,
    candidate: Candidate,
    trial: Trial,
    before: Costs,
    repetition: int,
    remaining: int,
) -> bool:
    """Return whether another chunk of the same size is measured.

    Args:
        search: The search.
        candidate: The candidate; its costs contain the trial.
        trial: The chunk that was measured last.
        before: The costs without it.
        repetition: How many chunks of this size were measured before.
        remaining: How many strategies share the time that is left, this one included.
    """
    disappoints = is_worse(trial, before.trials, search.thresholds.worse)
    # Before recording, a batch that disappoints speaks for that.
    if disappoints and candidate.recording == UNDECIDED:
        return False
    if _is_settled(search, candidate, trial, before, repetition):
        return False
    # What the next chunk prepares makes it faster. One that disappoints would end the search.
    if trial.continues or disappoints:
        return True
    # What was prepared, is.
    seconds = trial.seconds * trial.share
    return search.affords(seconds, remaining, is_kept=run_keeps(search, candidate))


def _is_settled(
    search: Search, candidate: Candidate, trial: Trial, before: Costs, repetition: int
) -> bool:
    """Return whether another chunk of the same size could decide nothing."""
    limits, costs, size = search.thresholds, candidate.measured, trial.chunk_size
    # Where nothing is left to choose, a few percent of the predicted time do not matter.
    if not search.has_choice and len(costs.trials) > 1:
        return True
    # Where no other lines are left, another measurement saves the run nothing.
    again = lines_of_trial(candidate.opened, size, repetition + 1)
    if again in kept_lines(candidate.stream):
        return True
    if trial.continues:
        return False
    # In a few milliseconds all is measured twice: what is first takes its memory from the system.
    if trial.seconds > limits.brief_seconds:
        # One that is much better than smaller ones leads to a larger one, as it is.
        smaller = [each for each in before.trials if each.chunk_size < size]
        if smaller and all(is_worse(each, [trial], limits.worse) for each in smaller):
            return True
        # No second look makes up for what is far behind, which another strategy or, after the first
        # batch, a smaller chunk tells, whose own first look took so many times longer.
        growth = candidate.growth
        known = None if growth is None else growth.first_of_a_size
        longer = limits.first_of_a_size if known is None else max(known, limits.worse)
        is_behind = len(smaller) > 1 and is_worse(trial, smaller, longer)
        if is_behind or is_far_behind(search, candidate, costs):
            return True
    # A recorded program adapts to a size, and takes the memory of a first chunk from the system.
    if repetition == 0 and (size == 1 or candidate.opened.engine == "captured"):
        return False
    return trial.seconds > limits.lasting_seconds or repetition + 1 >= limits.repetitions


def is_far_behind(search: Search, candidate: Candidate, costs: Costs) -> bool:
    """Return whether another strategy is many times faster in chunks of the size last measured."""
    size = costs.trials[-1].chunk_size
    rivals = [
        other.measured.seconds(size)
        for other in search.measured
        if other is not candidate and size in [trial.chunk_size for trial in other.measured.trials]
    ]
    return costs.seconds(size) > search.thresholds.far_behind * min(rivals, default=math.inf)


def run_keeps(search: Search, candidate: Candidate) -> bool:
    """Return whether the run keeps a chunk that is measured: that of the fastest strategy.

    To prepare a recorded program for each chunk size may take longer than the chunk.
    """
    stream, costs = candidate.stream, candidate.costs
    if not isinstance(stream, Keeping) or costs is None:
        return False
    last = costs.trials[-1]
    is_prepared = stream.engine == "captured" and last.preparing <= last.seconds
    return (stream.engine == "plain" or is_prepared) and candidate is search.fastest()


def is_worse(trial: Trial, others: Sequence[Trial], factor: float) -> bool:
    """Return whether a line takes many times longer than in the best of other chunks, if any."""
    best = min((each.line_seconds for each in others), default=math.inf)
    return trial.line_seconds > factor * best
