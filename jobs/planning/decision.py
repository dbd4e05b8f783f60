"""What planning decides: strategy, axis, engine and chunk size."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.planning.cost import Costs
from jobs.streams.stream import Stream


@dataclass(frozen=True)
class Decision:
    """How a job is computed.

    Attributes:
        strategy: The name of the strategy.
        engine: ``auto``, ``compiled``, or the only engine that fits into the memory.
        stream: The open stream of blocks.
        chunk_size: The number of rows or columns that are computed at once.
        largest_chunk: How large chunks may become while the job runs.
        costs: What was measured of the strategy.
        strategy_reason: Why the strategy was chosen, in words.
        chunk_reason: Why the chunk size was chosen, in words.
        probing_seconds: The time that the search took.
        fallbacks: Slower ways that the stream has already taken, as sentences; it does not report
            them again.
        waited: The share of the time in which measured chunks waited for a processor.
    """

    strategy: str
    engine: str
    stream: Stream
    chunk_size: int
    largest_chunk: int
    costs: Costs
    strategy_reason: str
    chunk_reason: str
    probing_seconds: float
    fallbacks: tuple[str, ...] = ()
    waited: float = 0.0

    @property
    def peak_bytes(self) -> int:
        """The predicted peak of memory: of the process on a CPU, else of the device."""
        return self.costs.peak_bytes(self.chunk_size)

    def seconds(self, lines: int) -> float:
        """Return the predicted time to compute a number of rows or columns."""
        if not lines:
            return 0.0
        line = self.costs.seconds(self.chunk_size) / max(1, self.costs.lines)
        return self.costs.first_seconds + lines * line
