"""Decide whether the programs of the captured engine are compiled."""

from __future__ import annotations

from autodiff_core import Axis, predicting_fusion
from jobs.errors import OutOfMemoryError
from jobs.machine.compiler import compiler_path
from jobs.machine.measurement import release_memory
from jobs.planning.candidate import Candidate, Search
from jobs.planning.cost import Trial
from jobs.planning.trials import measure_chunk, within_budget
from jobs.records.announcements import trying_strategy
from jobs.streams.kept import kept_lines
from jobs.streams.opening import open_job_stream
from jobs.units import duration


def may_compile(search: Search, candidate: Candidate, chunk_size: int) -> bool:
    """Return whether compiling is tried, and its gain measured."""
    job, stream = search.job, candidate.opened
    # The programs of many small matrices would be compiled one by one.
    if job.is_ragged or job.compile == "never" or stream.engine != "captured" or 0 in stream.shape:
        return False
    if job.compile == "always":
        return True
    run_seconds = candidate.measured.seconds(chunk_size)
    if job.device.type != "cpu":
        # A kernel is compiled for each tensor.
        tensors = len((stream.rows if stream.axis is Axis.ROWS else stream.columns).shapes)
        return run_seconds >= search.thresholds.compiles_on_devices_from_seconds * tensors
    if run_seconds < search.thresholds.compiles_from_seconds or compiler_path() is None:
        return False
    # The next chunk that the run computes, and keeps.
    with predicting_fusion() as found:
        measure_chunk(job, candidate, chunk_size, number=len(kept_lines(stream)))
    return found.seconds_saved * run_seconds > found.compile_seconds * found.seconds


def try_compiling(search: Search, candidate: Candidate, chunk_size: int) -> str:
    """Compile for a chunk size, keep that where it pays, and return what it gave in words.

    The stream of the candidate is closed first and open again at the end.
    """
    costs = candidate.measured
    before = costs.line_seconds(chunk_size) * chunk_size
    candidate.stream = None
    release_memory()
    compiles = f"was compiled for {chunk_size} at a time"
    trying_strategy(search.job, candidate.strategy, compiles, chunk_size)
    note = "not compiled, which does not fit into the memory"
    try:
        with within_budget(search):
            candidate.stream = open_job_stream(search.job, candidate.strategy, "compiled")
            first = measure_chunk(search.job, candidate, chunk_size)
            if candidate.stream.engine != "compiled":
                return f"not compiled ({candidate.stream.engine_refusal})"
            trial = measure_chunk(search.job, candidate, chunk_size)
        peak = max(first.peak_bytes, trial.peak_bytes)
        compiled = costs.compiled(Trial(chunk_size, trial.seconds, peak))
        if compiled.peak_bytes(chunk_size) <= search.budget.bytes:
            gain = f"{duration(trial.seconds)} a chunk and not {duration(before)}"
            if _pays(search, trial.seconds, before):
                candidate.costs, candidate.engine = compiled, "compiled"
                return f"compiled in {duration(first.seconds)}: {gain}"
            note = f"not compiled, which gives {gain}"
    except OutOfMemoryError:
        pass
    candidate.stream = None
    candidate.fallbacks.clear()
    release_memory()
    candidate.stream = open_job_stream(search.job, candidate.strategy, candidate.engine)
    return note


def _pays(search: Search, compiled: float, before: float) -> bool:
    is_faster = compiled < search.thresholds.compiled_share * before
    return search.job.compile == "always" or is_faster
