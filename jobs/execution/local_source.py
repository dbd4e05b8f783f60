"""Compute, verify and inspect blocks in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from autodiff_core import Axis, Block
from jobs.errors import OutOfMemoryError, StrategyError, failing_strategy
from jobs.execution.block_sources import ComputedBlock, Remaining
from jobs.functions.failures import explaining_failures
from jobs.job import Job
from jobs.machine.device_copies import copies_to_host
from jobs.machine.measurement import Measurement, release_memory, timing
from jobs.records.announcements import trying_strategy
from jobs.streams.kept import forget_kept, holds, kept_lines
from jobs.streams.nonfinite import Entries, entries_not_finite
from jobs.streams.stream import Stream, stored_dtype, to_numpy
from jobs.verification.check import Check
from jobs.verification.precision import advice

_logger = logging.getLogger(__name__)


class LocalSource:
    """Blocks computed in this process, one after the other.

    From a device with streams a block is copied while the next one is computed.

    Args:
        job: The job.
        strategy: The strategy of the stream.
        stream: Its stream of blocks.
        check: The check of the blocks.

    Attributes:
        shares_cores: Whether the device is the CPU.
    """

    def __init__(self, job: Job, strategy: str, stream: Stream, check: Check) -> None:
        self._job = job
        self._strategy = strategy
        self._stream = stream
        self._check = check
        self._copy = copies_to_host(job.device)
        self.shares_cores = job.device.type == "cpu"

    def blocks(
        self, remaining: Remaining, is_leaving: Callable[[], bool]
    ) -> Generator[ComputedBlock, None, None]:
        """Yield the remaining blocks in order, in smaller chunks where memory runs out."""
        under_way: Callable[[], ComputedBlock] | None = None
        failure: Exception | None = None
        while failure is None and not is_leaving() and (lines := remaining.take()) is not None:
            reason, found = None, None
            is_computed = any(holds(each, lines) for each in kept_lines(self._stream))
            if not is_computed:
                forget_kept(self._stream)
            self._announce(lines, remaining.facts.axis)
            # Of a device, whose blocks are copied meanwhile, nothing is timed.
            clock = timing(self._job.device) if self._copy is None else nullcontext(Measurement())
            try:
                with clock as taken:
                    found = compute_block(self._job, self._stream, self._check, lines)
            except OutOfMemoryError as error:
                reason = str(error)
            except Exception as error:
                failure = error
            if under_way is not None:
                yield under_way()
                under_way = None
            if found is not None:
                under_way = self._on_its_way(*found)
                if self._copy is None:
                    yield under_way()
                    under_way = None
                    if not is_computed:
                        remaining.chunks.learn(len(lines), taken.seconds, remaining.lines)
            # Here the error, and with it the frames that hold memory, has been released.
            elif failure is None:
                release_memory()
                remaining.chunks.halve(lines.start, remaining.facts.axis, str(reason))
                remaining.put_back(lines)
        if under_way is not None:
            yield under_way()
        if failure is not None:
            raise failure

    def _announce(self, lines: range, axis: str) -> None:
        computes = f"({self._stream.engine} engine) computed {axis} {lines.start} to {lines.stop}"
        trying_strategy(self._job, self._strategy, computes, len(lines))

    def _on_its_way(
        self, block: Block, error: float, not_finite: Entries
    ) -> Callable[[], ComputedBlock]:
        """Begin to copy a block to the host; return a function that waits for it and returns it."""
        stored = stored_dtype(self._job.storage or self._stream.dtype)
        start, stop, fallbacks = block.start, block.stop, tuple(map(str, block.fallbacks))
        if self._copy is None:
            values = to_numpy(block.values).astype(stored, copy=False)
            return lambda: ComputedBlock(start, stop, values, error, not_finite, fallbacks)
        # The device's memory of the block is freed when it has been copied: nothing here holds it.
        copy = self._copy(block.values, stored)
        return lambda: ComputedBlock(start, stop, copy(), error, not_finite, fallbacks)

    def figures(self) -> dict[str, Any]:
        """Return which engine computed; there are no workers."""
        return {
            "engine": self._stream.engine,
            "engine_refusal": self._stream.engine_refusal,
            "seconds_to_start": 0.0,
            "workers": [],
        }


def compute_block(
    job: Job, stream: Stream, check: Check, lines: range
) -> tuple[Block, float, Entries]:
    """Compute a block, and compute it again if it fails the check.

    Args:
        job: The job.
        stream: Its stream of blocks.
        check: The check of the block.
        lines: Its rows or columns.

    Returns:
        The block on its device (of ``structure=diagonal`` its entries on the diagonal), its error,
        and its entries that are not finite.

    Raises:
        OutOfMemoryError: An allocation failed.
        StrategyError: The function fails, or the block fails the check twice.
    """
    with failing_strategy(""), explaining_failures(job.function):
        block = stream.block(lines.start, lines.stop)
        error = check.error(block)
        if error > check.tolerance:
            _logger.warning("%s %s to %s failed the check", block.axis, block.start, block.stop)
            block = stream.block(lines.start, lines.stop)
            error = check.error(block)
        if error > check.tolerance:
            explanation = _explanation(job, check)
            raise StrategyError(
                f"{block.axis} {block.start} to {block.stop} disagree with an independent product "
                f"by {error:.1e} (tolerance {check.tolerance:.1e}), twice{explanation}",
                is_wrong=True,
            )
        if job.structure == "diagonal":
            block = diagonal_of(block)
        return block, error, entries_not_finite(block)


def diagonal_of(block: Block) -> Block:
    """Return the entries of a block of a square matrix on its diagonal, as rows of one column."""
    lines = block.values if block.axis is Axis.ROWS else block.values.T
    # A copy: the rest of the block is not kept.
    entries = lines.diagonal(block.start).clone().unsqueeze(1)
    return replace(block, axis=Axis.ROWS, pieces=(entries,))


def _explanation(job: Job, check: Check) -> str:
    """Say what may be the reason of a failed check, as the end of a sentence."""
    return f": {'. '.join(check.notes)}" if check.notes else advice(job)
