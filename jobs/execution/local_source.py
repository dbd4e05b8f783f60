"""Blocks that have passed: computed, proved and inspected, here or by another process."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from autodiff_core import Block
from jobs.errors import JobError, OutOfMemoryError
from jobs.execution.chunk_size import ChunkSize
from jobs.functions.failures import explaining_failures
from jobs.job import Job
from jobs.machine.device_copies import copies_to_host
from jobs.machine.measurement import release_memory
from jobs.records.description import stored_dtype, to_numpy
from jobs.streams.at_points import PointStream, block_end
from jobs.streams.nonfinite import Entries, entries_not_finite
from jobs.verification.selection import Proof

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamFacts:
    """What is to be known of a stream of blocks by those who do not compute them.

    Attributes:
        axis: ``rows`` or ``columns``.
        shape: (rows, columns).
        dtype: That of the entries.
        unit: How many lines belong to one of many points.
        is_divisible: Whether a part of a point can be computed by itself.
    """

    axis: str
    shape: tuple[int, int]
    dtype: torch.dtype
    unit: int
    is_divisible: bool

    @classmethod
    def of(cls, stream: Any) -> StreamFacts:
        """Those of a stream."""
        is_of_points = isinstance(stream, PointStream)
        return cls(
            stream.axis,
            tuple(stream.shape),
            stream.dtype,
            stream.unit if is_of_points else 1,
            stream.is_divisible if is_of_points else True,
        )

    @property
    def across(self) -> int:
        """The length of a line."""
        return self.shape[1] if self.axis == "rows" else self.shape[0]


@dataclass(frozen=True)
class ComputedBlock:
    """A block on the host that agrees with the proof.

    Attributes:
        start: The first row or column.
        stop: One past the last.
        values: The entries in the orientation of the matrix.
        error: How far it is from the proof.
        not_finite: Its entries that are NaN or infinite.
        fallbacks: Slower ways that were first taken, as sentences.
        written: To be called when the values are not needed any more, where somebody waits for it.
    """

    start: int
    stop: int
    values: np.ndarray
    error: float
    not_finite: Entries
    fallbacks: tuple[str, ...]
    written: Callable[[], None] | None = None


class Source(Protocol):
    """Where computed blocks come from.

    Attributes:
        shares_cores: Whether the cores that compute are those of this process.
    """

    shares_cores: bool

    def blocks(
        self, remaining: Remaining, is_leaving: Callable[[], bool]
    ) -> Generator[ComputedBlock, None, None]:
        """The blocks of what remains, until it is none or the job is leaving."""
        ...

    def figures(self) -> dict[str, Any]:
        """How products were computed, and what each process did, for the record."""
        ...


class Remaining:
    """The lines that are not computed yet, handed out in chunks.

    Args:
        missing: The ranges of lines.
        chunks: The size of a chunk, which may get smaller.
        facts: Of the stream.
    """

    def __init__(self, missing: list[range], chunks: ChunkSize, facts: StreamFacts) -> None:
        self.chunks = chunks
        self.facts = facts
        self._ranges = deque(missing)

    @property
    def is_empty(self) -> bool:
        """Whether nothing remains."""
        return not self._ranges

    def take(self) -> range | None:
        """The next chunk; None where nothing remains."""
        if not self._ranges:
            return None
        lines = self._ranges.popleft()
        end = block_end(lines.start, self.chunks.size, self.facts.unit, self.facts.is_divisible)
        if end < lines.stop:
            self._ranges.appendleft(range(end, lines.stop))
        return range(lines.start, min(end, lines.stop))

    @property
    def lines(self) -> int:
        """How many remain."""
        return sum(map(len, self._ranges))

    def put_back(self, lines: range) -> None:
        """Give back a chunk that was not computed; it is the next to be handed out."""
        self._ranges.appendleft(lines)


class LocalSource:
    """Blocks computed in this process, one after the other.

    From a CUDA device a block is copied while the next one is computed.

    Args:
        job: The job.
        stream: Its stream of blocks.
        proof: What they are held against.

    Attributes:
        shares_cores: Whether the device is the CPU.
    """

    def __init__(self, job: Job, stream: Any, proof: Proof) -> None:
        self._job = job
        self._stream = stream
        self._proof = proof
        self._copy = copies_to_host(job.device)
        self.shares_cores = job.device.type == "cpu"

    def blocks(
        self, remaining: Remaining, is_leaving: Callable[[], bool]
    ) -> Generator[ComputedBlock, None, None]:
        """In order, in chunks that get smaller where memory runs out."""
        under_way: Callable[[], ComputedBlock] | None = None
        failure: Exception | None = None
        while failure is None and not is_leaving() and (lines := remaining.take()) is not None:
            reason, found, started = None, None, time.perf_counter()
            try:
                found = compute_block(self._job, self._stream, self._proof, lines)
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
                    seconds = time.perf_counter() - started
                    remaining.chunks.learn(len(lines), seconds, remaining.lines)
            # The error, and with it the frames that hold memory, is gone here.
            elif failure is None:
                release_memory()
                remaining.chunks.halve(lines.start, remaining.facts.axis, str(reason))
                remaining.put_back(lines)
        if under_way is not None:
            yield under_way()
        if failure is not None:
            raise failure

    def _on_its_way(
        self, block: Block, error: float, not_finite: Entries
    ) -> Callable[[], ComputedBlock]:
        """Begin to bring a block to the host; what is given waits until it is there."""
        stored = stored_dtype(self._job.storage or self._stream.dtype)
        copy = None if self._copy is None else self._copy(block.values, stored)

        def arrived() -> ComputedBlock:
            values = to_numpy(block.values).astype(stored, copy=False) if copy is None else copy()
            fallbacks = tuple(map(str, block.fallbacks))
            return ComputedBlock(block.start, block.stop, values, error, not_finite, fallbacks)

        return arrived

    def figures(self) -> dict[str, Any]:
        """The engine; there is this process alone."""
        return {
            "engine": self._stream.engine,
            "engine_refusal": self._stream.engine_refusal,
            "seconds_to_start": 0.0,
            "workers": [],
        }


def compute_block(
    job: Job, stream: Any, proof: Proof, lines: range
) -> tuple[Block, float, Entries]:
    """Compute a block, once more if it fails the proof.

    Args:
        job: The job.
        stream: Its stream of blocks.
        proof: What the block is held against.
        lines: Its rows or columns.

    Returns:
        The block on its device, its error, and its entries that are not finite.

    Raises:
        OutOfMemoryError: An allocation failed.
        JobError: The function fails, or the block fails the proof twice.
    """
    with explaining_failures(job.function):
        block = stream.block(lines.start, lines.stop)
        error = proof.error(block)
        if error > proof.tolerance:
            _logger.warning("%s %s to %s failed the proof", block.axis, block.start, block.stop)
            block = stream.block(lines.start, lines.stop)
            error = proof.error(block)
        if error > proof.tolerance:
            raise JobError(
                f"{block.axis} {block.start} to {block.stop} disagree with an independent product "
                f"by {error:.1e} (tolerance {proof.tolerance:.1e}), twice; what was computed "
                "before is kept. Try another strategy, or a wider dtype if the function is "
                "ill-conditioned"
            )
        return block, error, entries_not_finite(block)
