"""Compare the recorded program of the chosen candidate with the plain engine."""

from __future__ import annotations

from dataclasses import replace

from jobs.planning.candidate import Candidate, Search
from jobs.planning.cost import Trial
from jobs.planning.trials import measure_chunk
from jobs.streams.kept import kept_lines
from jobs.streams.single import SingleStream
from jobs.units import duration


def return_to_plain(search: Search, chosen: Candidate) -> str:
    """Let the plain engine compute if it was faster before recording, and return that in words.

    Args:
        search: The search.
        chosen: The candidate.

    Returns:
        An empty string if the recorded program computes.
    """
    costs, before, budget = chosen.measured, chosen.plain, search.budget.bytes
    recorder = None if chosen.stream is None else chosen.stream.recorder
    if recorder is None or before is None or search.job.compile == "always":
        return ""
    if not chosen.fits(budget) or before.best_seconds(budget) >= costs.best_seconds(budget):
        return ""
    recorder.record(False)
    slower = chosen.seconds_of_a_line
    chosen.engine, chosen.costs, chosen.plain = "plain", before, None
    return f"not recorded, which gives {slower}"


def try_plain(search: Search, chosen: Candidate, chunk_size: int) -> str:
    """Let the plain engine compute if its chunks are faster, and return that in words.

    The run keeps the chunk that is measured. The plain engine was measured before recording, in
    chunks that may have been smaller: by these times a chunk must be affordable.

    Args:
        search: The search.
        chosen: The candidate; its stream is open.
        chunk_size: The chunk size that was chosen for its recorded program.

    Returns:
        An empty string if the recorded program computes.
    """
    stream, costs, before = chosen.opened, chosen.measured, chosen.plain
    recorder = stream.recorder
    if recorder is None or not isinstance(stream, SingleStream) or stream.engine != "captured":
        return ""
    if before is None or search.job.compile == "always":
        return ""
    chunk_size = min(chunk_size, stream.axis.lines(stream.shape))
    limits = search.thresholds
    line = min(trial.line_seconds for trial in before.trials)
    recorded = chunk_size * costs.line_seconds(chunk_size)
    expected = chunk_size * line
    # What was measured in chunks of this size gains no more by a look at others.
    is_known = chunk_size in [trial.chunk_size for trial in before.trials]
    behind = limits.worse if is_known else limits.plain_behind
    if expected > behind * recorded or not search.affords(expected, 1):
        return ""
    with stream.waiting():
        trial = measure_chunk(search.job, chosen, chunk_size, number=len(kept_lines(stream)))
    if trial.seconds >= recorded:
        return ""
    # The recorded program may have been disturbed.
    again = measure_chunk(search.job, chosen, chunk_size, number=len(kept_lines(stream)))
    if trial.seconds >= again.seconds:
        return ""
    recorder.record(False)
    plain = Trial(chunk_size, trial.seconds, trial.peak_bytes, share=trial.share)
    chosen.engine, chosen.costs = "plain", replace(costs, trials=(plain,))
    return (
        f"not recorded, which gives {duration(recorded)} a chunk and not {duration(plain.seconds)}"
    )
