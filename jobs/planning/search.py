"""Choosing strategy and chunk size by short probes, within budgets of memory and of time."""

from __future__ import annotations

import gc
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from autodiff_core import Block
from jobs.errors import JobError, OutOfMemoryError
from jobs.functions.failures import explaining_failures
from jobs.job import Job
from jobs.machine.measurement import Measurement, limited_memory, measuring, release_memory, timing
from jobs.machine.memory import Budget, memory_in_use
from jobs.machine.process_memory import resident_memory
from jobs.machine.warm_up import warm_up
from jobs.planning.cost import LADDER, Costs, Trial, even_chunk
from jobs.planning.decision import Decision
from jobs.planning.growth import Growth
from jobs.planning.thresholds import (
    CHUNKS_OF_A_WORKER,
    COMPILED_SHARE,
    COMPILES_FROM_SECONDS,
    FAR_BEHIND,
    HOPELESS,
    LASTING_SECONDS,
    LINES_TO_OPEN,
    LOADING_SECONDS,
    REPETITIONS,
    SECONDS_ANYWAY,
    SECONDS_AT_MOST,
    SHARE,
    SHARE_OF_PEAK,
    SHARE_OF_SHORT_RUNS,
    SHARE_TO_KEEP,
    SMALL_BATCH,
    WORSE,
    WORSE_IN_A_ROW,
)
from jobs.strategies import FORWARD, LOOPS
from jobs.streams.at_points import PointStream
from jobs.streams.nonfinite import entries_not_finite
from jobs.streams.opening import open_job_stream
from jobs.streams.stream import block_end, stored_dtype, to_numpy
from jobs.units import duration, size
from jobs.verification.probe_check import ProbeCheck

_logger = logging.getLogger(__name__)


def decide(
    job: Job,
    budget: Budget,
    *,
    strategy: str,
    chunk_limit: int | None = None,
    tell: Callable[[int], None] = lambda chunk_size: None,
) -> Decision:
    """Choose how to compute a job: what the user left open is measured.

    Args:
        job: The job.
        budget: The memory that it may use.
        strategy: The strategy, or ``auto``.
        chunk_limit: The largest chunk size that may be chosen; None for any.
        tell: Is told each chunk size before it is tried.

    Raises:
        JobError: Not even one line fits into the budget, or no strategy can differentiate the
            function.
    """
    return _Search(job, budget, chunk_limit, tell).decision(strategy)


class _Search:
    """One strategy after the other is opened and measured, in small chunks before large ones.

    Those that hold little memory, and the last one, stay open: if one of them is chosen, its
    programs need not be captured and verified twice. Others are closed before the next is opened, so
    that each peak of memory is that of one alone.
    """

    def __init__(
        self, job: Job, budget: Budget, chunk_limit: int | None, tell: Callable[[int], None]
    ) -> None:
        self._job = job
        self._budget = budget
        self._limit = chunk_limit or job.chunk_size
        self._tell = tell
        self._started = time.perf_counter()
        self._spent = 0.0
        self._measured: dict[str, Costs] = {}
        self._notes: dict[str, str] = {}
        self._engines: dict[str, str] = {}
        self._units: dict[str, str] = {}
        self._failure: JobError | None = None
        self._occupied = memory_in_use(job.device)
        # Of the matrix at a single point, once a stream has told it.
        self._shape: tuple[int, int] | None = None
        self._streams: dict[str, Any] = {}
        self._growth: dict[str, Growth] = {}
        self._fallbacks: dict[str, list[str]] = {}
        # Strategies of which a chunk did not fit.
        self._ran_out: set[str] = set()

    def decision(self, strategy: str) -> Decision:
        warm_up()
        # Garbage is looked for among what the search makes, not among all modules each time.
        gc.freeze()
        try:
            return self._decision(strategy)
        finally:
            gc.unfreeze()

    def _decision(self, strategy: str) -> Decision:
        with self._within_budget():
            if strategy == "auto":
                self._measure_all()
            else:
                self._measure(strategy, remaining=1)
        chosen = self._fastest()
        chunk_size, chunk_reason = self._chunk(self._measured[chosen])
        stream = self._opened(chosen)
        reason = "as asked for" if strategy != "auto" else self._reason(chosen)
        if self._may_compile(stream, chosen, chunk_size):
            del stream
            note, stream = self._compiled(chosen, chunk_size)
            reason += f"; {note}"
        return Decision(
            chosen,
            self._engines[chosen],
            stream,
            chunk_size,
            self._largest_chunk(self._measured[chosen], chunk_size),
            self._measured[chosen],
            reason,
            chunk_reason,
            time.perf_counter() - self._started,
            tuple(self._fallbacks.get(chosen, ())),
        )

    def _opened(self, strategy: str) -> Any:
        """The stream of a strategy: that which was measured, or a new one."""
        stream = self._streams.pop(strategy, None)
        self._streams.clear()
        if stream is not None:
            self._measured[strategy] = replace(self._measured[strategy], first_seconds=0.0)
            return stream
        self._fallbacks.clear()
        release_memory()
        return open_job_stream(self._job, strategy, self._engines[strategy])

    def _may_compile(self, stream: Any, strategy: str, chunk_size: int) -> bool:
        """Whether the programs of the captured engine are compiled, to see what that gives."""
        is_captured = stream.engine == "captured"
        if self._job.compile == "never" or not is_captured or 0 in stream.shape:
            return False
        if self._job.compile == "always":
            return True
        run = self._measured[strategy].seconds(chunk_size)
        # A kernel for each tensor.
        tensors = len((stream.rows if stream.axis == "rows" else stream.columns).shapes)
        return run >= COMPILES_FROM_SECONDS * tensors

    def _compiled(self, strategy: str, chunk_size: int) -> tuple[str, Any]:
        """What compiling gave, in words, and the stream that is left open."""
        costs = self._measured[strategy]
        before = costs.line_seconds(chunk_size) * chunk_size
        release_memory()
        note = "not compiled, which does not fit into the memory"
        try:
            with self._within_budget():
                stream = open_job_stream(self._job, strategy, "compiled")
                first = self._trial(strategy, stream, chunk_size, costs.lines)
                if stream.engine != "compiled":
                    return f"not compiled ({stream.engine_refusal})", stream
                trial = self._trial(strategy, stream, chunk_size, costs.lines)
            peak = max(first.peak_bytes, trial.peak_bytes)
            used = costs.compiled(Trial(chunk_size, trial.seconds, peak))
            is_within = used.peak_bytes(chunk_size) <= self._budget.bytes
            gain = f"{duration(trial.seconds)} a chunk and not {duration(before)}"
            if is_within and self._pays(trial.seconds, before):
                self._measured[strategy] = used
                self._engines[strategy] = "compiled"
                return f"compiled in {duration(first.seconds)}: {gain}", stream
            if is_within:
                note = f"not compiled, which gives {gain}"
            del stream
        except OutOfMemoryError:
            pass
        self._fallbacks.clear()
        release_memory()
        return note, open_job_stream(self._job, strategy, self._engines[strategy])

    def _pays(self, compiled: float, before: float) -> bool:
        return self._job.compile == "always" or compiled < COMPILED_SHARE * before

    @contextmanager
    def _within_budget(self) -> Iterator[None]:
        """A probe that would take more than the budget fails, as on a machine with no more."""
        if self._job.device.type == "cuda":
            yield
            return
        with limited_memory(max(0, self._budget.bytes - resident_memory())):
            yield

    def _measure_all(self) -> None:
        is_pullback = self._job.operation in ("vjp", "vhp")
        batched = ["vectorize"] if is_pullback else ["forward-mode", "vectorize"]
        for place, strategy in enumerate(batched):
            self._attempt(strategy, remaining=len(batched) - place)
        # What waited for the other one to be measured goes on, if it may still be the faster.
        self._go_on(batched[0])
        if not self._measured:
            for strategy in [each for each in batched if each in self._notes]:
                self._attempt(strategy, remaining=1, even_if_hopeless=True)
        if self._measured:
            best = self._fastest()
            chunk_size = self._measured[best].best_chunk(self._budget.bytes)
            if chunk_size is None or chunk_size <= SMALL_BATCH:
                self._attempt(LOOPS[best], remaining=1)
        for loop in map(LOOPS.__getitem__, batched):
            # A loop holds less than any batch.
            if not self._anything_fits() and loop not in self._measured | self._notes:
                self._attempt(loop, remaining=1, even_if_hopeless=True)

    def _anything_fits(self) -> bool:
        budget = self._budget.bytes
        return any(costs.best_chunk(budget) is not None for costs in self._measured.values())

    def _attempt(self, strategy: str, *, remaining: int, even_if_hopeless: bool = False) -> None:
        try:
            self._measure(strategy, remaining=remaining, even_if_hopeless=even_if_hopeless)
        except JobError as error:
            _logger.info("strategy %s is left out: %s", strategy, error)
            self._notes[strategy] = "cannot differentiate this function"
            self._failure = self._failure or error

    def _measure(self, strategy: str, *, remaining: int, even_if_hopeless: bool = True) -> None:
        """Open a strategy and measure chunks of growing size.

        Args:
            strategy: The strategy.
            remaining: How many strategies share the time that is left, this one included.
            even_if_hopeless: Whether it is measured although another needs far fewer passes, or
                there is no time to compare.
        """
        if not even_if_hopeless and self._shape is not None:
            rows, columns = self._shape
            passes, other = (columns, rows) if strategy in FORWARD else (rows, columns)
            if self._is_hopeless(strategy, passes, other):
                return
        # A captured program holds more than the plain engine does.
        for engine in ("auto",) if strategy in LOOPS.values() else ("auto", "plain"):
            self._streams.pop(strategy, None)
            self._close_large_streams()
            self._engines[strategy] = engine
            try:
                self._measure_engine(strategy, remaining, even_if_hopeless)
                measured = self._measured.get(strategy)
                if measured is None or measured.best_chunk(self._budget.bytes) is not None:
                    return
            except OutOfMemoryError:
                # What memory ran out in is not gone on with.
                self._streams.pop(strategy, None)
                self._ran_out.add(strategy)
                if strategy in self._measured:
                    return
        self._notes[strategy] = "not even one line fits into the memory"

    def _measure_engine(self, strategy: str, remaining: int, even_if_hopeless: bool) -> None:
        with measuring(self._job.device) as opening:
            stream = open_job_stream(self._job, strategy, self._engines[strategy])
        self._streams[strategy] = stream
        self._fallbacks[strategy] = []
        rows, columns = stream.shape
        across = columns if stream.axis == "rows" else rows
        costs = Costs(
            strategy,
            lines=rows if stream.axis == "rows" else columns,
            line_bytes=across * stored_dtype(self._job.storage or stream.dtype).itemsize,
            # At many points a line is computed for several of them at once.
            is_loop=strategy in LOOPS.values() and self._job.points is None,
            on_host=self._job.device.type == "cpu",
            unit=stream.unit if isinstance(stream, PointStream) else 1,
            is_divisible=not isinstance(stream, PointStream) or stream.is_divisible,
        )
        self._units[strategy] = stream.axis
        passes, other = costs.lines, across
        if isinstance(stream, PointStream):
            passes = stream.passes
            other = stream.rows.size if stream.passes == columns else columns
        else:
            self._shape = stream.shape
        if even_if_hopeless or not self._is_hopeless(strategy, passes, other):
            # All the time is for this one where the other is not worth opening.
            remaining = 1 if self._has_too_many_passes(other, passes) else remaining
            self._growth[strategy] = Growth(costs, opening.peak_bytes, self._sizes(costs))
            self._grow(stream, self._growth[strategy], remaining)

    def _go_on(self, strategy: str) -> None:
        if strategy not in self._streams or strategy not in self._measured:
            return
        try:
            self._grow(self._streams[strategy], self._growth[strategy], remaining=1)
        except OutOfMemoryError:
            self._streams.pop(strategy)
            self._ran_out.add(strategy)

    def _close_large_streams(self) -> None:
        """Before another is measured; those that hold next to nothing may stay."""
        release_memory()
        held = memory_in_use(self._job.device) - self._occupied
        if self._streams and held > SHARE_TO_KEEP * self._budget.bytes:
            self._streams.clear()
            release_memory()

    def _has_too_many_passes(self, passes: int, other: int) -> bool:
        return self._job.operation == "jacobian" and passes > HOPELESS * max(1, other)

    def _is_hopeless(self, strategy: str, passes: int, other: int) -> bool:
        """Whether a strategy is not worth opening: too many passes, or too short a run."""
        lines = "columns" if strategy in FORWARD else "rows"
        if self._has_too_many_passes(passes, other):
            self._notes[strategy] = f"not tried for its {passes} {lines}"
            return True
        if not self._measured:
            return False
        best = self._measured[self._fastest()]
        line = best.line_seconds(best.trials[0].chunk_size)
        if self._affordable(max(LINES_TO_OPEN * line, best.first_seconds), 1):
            return False
        self._notes[strategy] = "not tried in so short a run"
        return True

    def _grow(self, stream: Any, growth: Growth, remaining: int) -> None:
        """Measure chunks of growing size until they get slower, too large, or time is up."""
        strategy = growth.costs.strategy
        if not growth.costs.lines or 0 in stream.shape:
            self._measured[strategy] = growth.costs.with_trial(Trial(1, 0.0, growth.opening))
            return
        while growth.sizes:
            chunk_size, trials = growth.sizes[0], growth.costs.trials
            if trials and not self._worth_trying(growth.costs, chunk_size, remaining):
                return
            if trials and remaining > 1 and self._can_wait(growth.costs, chunk_size):
                return
            growth.sizes.pop(0)
            self._measure_chunks(stream, growth, chunk_size, remaining)
            # Where other work takes a core, chunks that are large enough for several threads are
            # slow, and still larger ones are not.
            trials = growth.costs.trials
            growth.worse = growth.worse + 1 if self._is_worse(trials[-1], trials) else 0
            if growth.worse == WORSE_IN_A_ROW:
                growth.sizes.clear()

    def _can_wait(self, costs: Costs, chunk_size: int) -> bool:
        """Whether another strategy is measured first, which takes no longer than this step.

        For that this one has to stay open.
        """
        held = memory_in_use(self._job.device) - self._occupied
        seconds = REPETITIONS * chunk_size * costs.line_seconds(chunk_size)
        return seconds >= costs.first_seconds and held <= SHARE_TO_KEEP * self._budget.bytes

    def _measure_chunks(self, stream: Any, growth: Growth, chunk_size: int, remaining: int) -> None:
        """Measure chunks of one size; of a strategy's first the fastest, not the first, counts."""
        strategy, first = growth.costs.strategy, 0.0
        self._tell(chunk_size)
        # The first chunk verifies the batching as well; what counts is one without.
        for repetition in range(REPETITIONS):
            costs = growth.costs
            loaded = len(sys.modules)
            by = measuring if repetition == 0 or not costs.trials else timing
            trial = self._trial(strategy, stream, chunk_size, costs.lines, by)
            has_loaded = len(sys.modules) > loaded
            if has_loaded and repetition == 0 and trial.seconds < LOADING_SECONDS:
                growth.opening = max(growth.opening, trial.peak_bytes)
                continue
            if not costs.trials:
                first = trial.seconds
            # What disappoints is measured again: it would end the search.
            disappoints = bool(costs.trials) and self._is_worse(trial, costs.trials)
            peak = max(growth.opening, trial.peak_bytes)
            costs = costs.with_trial(Trial(chunk_size, trial.seconds, peak))
            if chunk_size == 1:
                costs = costs.with_first(first)
            growth.costs = self._measured[strategy] = costs
            is_sure = trial.seconds > LASTING_SECONDS and (chunk_size, repetition) != (1, 0)
            is_affordable = disappoints or self._affordable(trial.seconds, remaining)
            if is_sure or not is_affordable:
                break
            self._spent += trial.seconds if (chunk_size, repetition) != (1, 0) else 0.0

    def _is_worse(self, trial: Trial, others: Sequence[Trial]) -> bool:
        best = min(each.seconds / each.chunk_size for each in others)
        return trial.seconds / trial.chunk_size > WORSE * best

    def _sizes(self, costs: Costs) -> list[int]:
        if self._limit is None:
            return costs.ladder() if not costs.is_loop else costs.ladder()[:2]
        given = max(1, min(self._limit, costs.lines))
        if costs.unit > 1:
            given = max(costs.smallest, given - given % costs.unit if given > costs.unit else given)
        if self._job.chunk_size is not None:
            return sorted({costs.smallest, given})
        return [each for each in costs.ladder() if each < given] + [given]

    def _worth_trying(self, costs: Costs, chunk_size: int, remaining: int) -> bool:
        smaller = costs.trials[-1]
        seconds = chunk_size * smaller.seconds / smaller.chunk_size
        others = [each for name, each in self._measured.items() if name != costs.strategy]
        here = costs.seconds(smaller.chunk_size)
        rivals = [
            other.seconds(trial.chunk_size)
            for other in others
            for trial in other.trials
            if trial.chunk_size == smaller.chunk_size
        ]
        return (
            costs.fits(chunk_size, self._budget.bytes)
            and self._affordable(seconds, remaining)
            and self._promises_more(costs, REPETITIONS * seconds)
            and not any(here > FAR_BEHIND * rival for rival in rivals)
        )

    def _promises_more(self, costs: Costs, seconds: float) -> bool:
        """Whether a larger chunk may well save the time that it takes to measure it."""
        best = min(map(self._run_seconds, self._measured))
        return seconds <= SHARE * best or best - costs.promised_seconds >= seconds

    def _affordable(self, seconds: float, remaining: int) -> bool:
        """Whether there is time for another probe: a share of the run as predicted so far."""
        run = min((self._run_seconds(each) for each in self._measured), default=math.inf)
        short = min(SECONDS_AT_MOST, SECONDS_ANYWAY + SHARE_OF_SHORT_RUNS * run)
        return self._spent + seconds <= max(SHARE * run, short) / remaining

    def _trial(
        self,
        strategy: str,
        stream: Any,
        chunk_size: int,
        lines: int,
        by: Callable[[torch.device], AbstractContextManager[Measurement]] = measuring,
    ) -> Trial:
        # In the middle: the lines at an edge are often those that depend on little.
        start = (lines - chunk_size) // 2
        if isinstance(stream, PointStream):
            start -= start % stream.unit
        with by(self._job.device) as found:
            with explaining_failures(self._job.function):
                stop = start + chunk_size
                if isinstance(stream, PointStream):
                    stop = block_end(stream, start, chunk_size)
                block = stream.block(start, stop)
            self._fallbacks.setdefault(strategy, []).extend(map(str, block.fallbacks))
            self._handle(stream, block)
        return Trial(chunk_size, found.seconds, found.peak_bytes)

    def _handle(self, stream: Any, block: Block) -> None:
        """Do with a block what the job will do: look at it, verify it, bring it to the host."""
        entries_not_finite(block)
        if self._job.verify == "probe":
            ProbeCheck.rehearsal(self._job, stream).error(block)
        stored = stored_dtype(self._job.storage or stream.dtype)
        values = to_numpy(block.values).astype(stored, copy=False)
        # Columns are turned to be written; those of a Hessian are rows, by symmetry.
        if self._job.operation != "hessian":
            np.ascontiguousarray(values)

    def _run_seconds(self, strategy: str) -> float:
        costs = self._measured[strategy]
        return min(costs.seconds(trial.chunk_size) for trial in costs.trials)

    def _fastest(self) -> str:
        """The strategy that is fastest within the budget.

        Raises:
            JobError: There is none.
        """

        def seconds(strategy: str) -> float:
            costs = self._measured[strategy]
            best = costs.best_chunk(self._budget.bytes)
            return math.inf if best is None else costs.seconds(best)

        if not self._measured:
            raise self._failure or self._too_large()
        return min(self._measured, key=seconds)

    def _chunk(self, costs: Costs) -> tuple[int, str]:
        budget, asked = self._budget, self._job.chunk_size
        if asked is not None and asked == self._limit:
            if costs.peak_bytes(asked) > budget.bytes:
                raise JobError(
                    f"chunk_size={asked} needs about {size(costs.peak_bytes(asked))} and the "
                    f"memory budget is {size(budget.bytes)} ({budget.reason}); chunk_size=auto "
                    "finds one that fits, memory= grants more"
                )
            return asked, "as asked for"
        best = costs.best_chunk(budget.bytes)
        if best is None:
            raise self._too_large(costs.peak_bytes(1))
        best = min(best, self._limit or best)
        if (workers := len(self._job.devices)) > 1:
            best = min(best, math.ceil(costs.lines / (CHUNKS_OF_A_WORKER * workers)))
        chunk_size = even_chunk(best, costs.lines, costs.unit)
        largest = costs.trials[-1].chunk_size
        reason = f"the fastest of those measured, up to {largest}"
        if best == largest and costs.is_falling:
            larger = self._larger(costs, best, costs.peak_bytes(best))
            if larger > best:
                chunk_size = even_chunk(larger, costs.lines, costs.unit)
                reason = f"more than the {largest} that were measured, for lines get cheaper"
        if costs.is_loop:
            reason = "large enough for the disk; lines are computed one by one"
        elif chunk_size == largest < costs.lines and not costs.fits(4 * largest, budget.bytes):
            reason = f"the largest within {size(budget.bytes)}"
        return chunk_size, reason

    def _larger(self, costs: Costs, chunk_size: int, peak_bytes: int) -> int:
        """The next larger chunk size, where it may be taken without a measurement, or the same.

        That is so where no time was left to measure it: on a CPU, in this process, and without a
        higher peak of memory than a person is told.
        """
        is_open = costs.trials[-1].chunk_size <= chunk_size < costs.lines and self._limit is None
        is_here = self._job.device.type == "cpu" and len(self._job.devices) == 1
        is_limited = costs.strategy in self._ran_out or costs.is_loop or costs.unit > 1
        if not (is_open and is_here) or is_limited:
            return chunk_size
        larger = min(LADDER * chunk_size, costs.lines)
        is_within = costs.peak_bytes(larger) <= (1 + SHARE_OF_PEAK) * peak_bytes
        return larger if is_within and costs.fits(larger, self._budget.bytes) else chunk_size

    def _largest_chunk(self, costs: Costs, chunk_size: int) -> int:
        """How large chunks may become in the run, where no time was left to measure larger ones."""
        peak_bytes = costs.peak_bytes(chunk_size)
        while (larger := self._larger(costs, chunk_size, peak_bytes)) > chunk_size:
            chunk_size = larger
        return chunk_size

    def _reason(self, chosen: str) -> str:
        costs = self._measured[chosen]

        def each(strategy: str) -> str:
            measured = self._measured[strategy]
            line = self._run_seconds(strategy) / max(1, measured.lines)
            return f"{duration(line)} a {self._units[strategy].removesuffix('s')}"

        text = f"{costs.lines} {self._units[chosen]}, measured {each(chosen)}"
        for strategy in self._measured:
            if strategy != chosen:
                lines = self._measured[strategy].lines
                text += f"; {strategy} {lines} {self._units[strategy]}, {each(strategy)}"
        for strategy, note in self._notes.items():
            text += f"; {strategy} {note}"
        return text

    def _too_large(self, needed: int | None = None) -> JobError:
        budget = self._budget
        need = f"about {size(needed)}" if needed else f"more than {size(budget.bytes)}"
        return JobError(
            f"one row or column at a time needs {need} of memory, and the budget is "
            f"{size(budget.bytes)} ({budget.reason}); memory=... grants more, a smaller dtype, "
            "fewer variables (wrt.pattern=...) or samples at once (loss.batch_size=...) take less"
        )
