"""Sources of computed blocks: this process, or a pool of workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jobs.execution.chunk_size import ChunkSize
from jobs.streams.nonfinite import Entries
from jobs.streams.stream import StreamFacts, block_end


@dataclass(frozen=True)
class ComputedBlock:
    """A block on the host that agrees with the check.

    Attributes:
        start: The first row or column.
        stop: One past the last.
        values: The entries in the orientation of the matrix.
        error: How far it is from the check.
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
        end = block_end(self.facts, lines.start, self.chunks.size)
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
