"""The contract of a source of computed blocks, and the lines that remain to be computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jobs.execution.chunk_size import ChunkSize
from jobs.streams.nonfinite import Entries
from jobs.streams.stream import StreamFacts, block_end


@dataclass(frozen=True)
class ComputedBlock:
    """A block on the host that has passed the check.

    Attributes:
        start: The first row or column.
        stop: One past the last.
        values: The entries in the orientation of the matrix.
        error: The largest relative error that the check found.
        not_finite: The entries that are NaN or infinite.
        fallbacks: Slower ways that were first taken for it, as sentences.
        written: Called when the values are not needed any more; None if no process waits for that.
    """

    start: int
    stop: int
    values: np.ndarray
    error: float
    not_finite: Entries
    fallbacks: tuple[str, ...]
    written: Callable[[], None] | None = None


class BlockSource(Protocol):
    """A source of computed blocks: this process, or a pool of workers.

    Attributes:
        shares_cores: Whether blocks are computed on processor cores of this process.
    """

    shares_cores: bool

    def blocks(
        self, remaining: Remaining, is_leaving: Callable[[], bool]
    ) -> Generator[ComputedBlock, None, None]:
        """Yield the remaining blocks, until none remains or the job is leaving."""
        ...

    def figures(self) -> dict[str, Any]:
        """Return how products were computed, and what each process did, for the record."""
        ...


class Remaining:
    """The lines that are not computed yet, handed out in chunks.

    Args:
        missing: The ranges of lines.
        chunks: The size of a chunk, which may change.
        facts: What is known of the stream.
        kept: The lines of blocks that are computed already, which are handed out first, whatever
            the size of a chunk; those that do not miss as a whole are computed with the others.
    """

    def __init__(
        self,
        missing: list[range],
        chunks: ChunkSize,
        facts: StreamFacts,
        kept: Iterable[range] = (),
    ) -> None:
        self.chunks = chunks
        self.facts = facts
        first: list[range] = []
        for lines in kept:
            gap = next((each for each in missing if lines[0] in each and lines[-1] in each), None)
            if gap is not None:
                rest = range(gap.start, lines.start), range(lines.stop, gap.stop)
                place = missing.index(gap)
                missing = [*missing[:place], *filter(len, rest), *missing[place + 1 :]]
                first.append(lines)
        self._ranges = deque([*first, *missing])
        self._kept = set(first)

    @property
    def is_empty(self) -> bool:
        """Whether nothing remains."""
        return not self._ranges

    def take(self) -> range | None:
        """Return the next chunk; None if nothing remains."""
        if not self._ranges:
            return None
        lines = self._ranges.popleft()
        if lines in self._kept:
            return lines
        end = block_end(self.facts, lines.start, self.chunks.size)
        if end < lines.stop:
            self._ranges.appendleft(range(end, lines.stop))
        return range(lines.start, min(end, lines.stop))

    @property
    def lines(self) -> int:
        """The number of lines that remain."""
        return sum(map(len, self._ranges))

    def put_back(self, lines: range) -> None:
        """Take back a chunk that was not computed; it is the next to be handed out."""
        self._kept.discard(lines)
        self._ranges.appendleft(lines)
