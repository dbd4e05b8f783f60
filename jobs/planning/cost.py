"""Predict time and memory of chunks from a few measured ones: arithmetic on frozen data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

# Measured: verifying a block and entering it in the ledger takes about this long.
SECONDS_OF_A_BLOCK = 5e-4
# The last block is written while nothing is computed, at about this rate.
_WRITTEN_BYTES_PER_SECOND = 1e9
# Two blocks wait in the writer's queue, and one is being written.
BLOCKS_IN_FLIGHT = 3
# A stop waits for the block that is being computed, and a kill loses it.
_LONGEST_BLOCK_SECONDS = 10.0
LADDER = 4
# Of chunks that are this close to the fastest the smallest is taken: it commits more often and
# takes less memory.
_CLOSE = 1.05
_ALIGNED = 16


@dataclass(frozen=True)
class Trial:
    """One measured chunk.

    Attributes:
        chunk_size: The number of rows or columns.
        seconds: The time that it took.
        peak_bytes: The peak of memory meanwhile.
        waited: The seconds, beside those, that it waited for a processor.
        share: Of a sum over data, the share of the terms that was computed to tell the time.
        preparing: The seconds, beside those, in which the engine prepared for later chunks.
        continues: Whether the next chunk of this size prepares for later ones as well.
    """

    chunk_size: int
    seconds: float
    peak_bytes: int
    waited: float = 0.0
    share: float = 1.0
    preparing: float = 0.0
    continues: bool = False

    @property
    def line_seconds(self) -> float:
        """How long a line takes in it."""
        return self.seconds / self.chunk_size

    def spent_on(self, lines: int) -> float:
        """Return what so many lines would take in a trial that prepares as much as this one."""
        return lines * self.line_seconds * self.share + self.preparing

    @property
    def spent(self) -> float:
        """The seconds that the measurement itself has taken."""
        return self.seconds * self.share + self.preparing


@dataclass(frozen=True)
class Costs:
    """The measured chunks of one strategy, and what they predict.

    Peak memory is taken as linear in the chunk size k, m0 + m1 k. The time of a line is not: chunks
    that leave the processor's caches get slower again, so only measured sizes are compared.

    Attributes:
        strategy: The name of the strategy.
        lines: The number of rows or columns to compute.
        line_bytes: Bytes of one of them.
        is_loop: Whether lines are computed one by one, so that their time does not depend on the
            chunk.
        on_host: Whether blocks that wait to be written take the same memory. Elsewhere one block is
            copied to the host while the next is computed.
        trials: The measured chunks, in order of chunk size.
        opening_bytes: The peak of memory while the stream was opened.
        first_seconds: How much longer the very first chunk takes, which verifies its batching.
        unit: The number of lines that belong to one of many points; 1 at a single point.
        is_divisible: Whether a part of a point can be computed by itself.
        largest: The largest chunk that is computed at once: a point of many of different sizes;
            None for all lines.
        share: The mean time of a line relative to that of the largest point.
        opening_seconds: The time to open all of many points of different sizes.
        has_long_blocks: Whether a block takes a pass over all data, and therefore may take long.
    """

    strategy: str
    lines: int
    line_bytes: int
    is_loop: bool
    on_host: bool = True
    trials: tuple[Trial, ...] = field(default=())
    opening_bytes: int = 0
    first_seconds: float = 0.0
    unit: int = 1
    is_divisible: bool = True
    largest: int | None = None
    share: float = 1.0
    opening_seconds: float = 0.0
    has_long_blocks: bool = False

    def with_trial(self, trial: Trial) -> Costs:
        """Return the costs with one more chunk.

        Of two of one size the shorter time counts, and the later peak, if it was measured: only the
        first chunk of all verifies its batching.
        """
        others = [each for each in self.trials if each.chunk_size != trial.chunk_size]
        for each in self.trials:
            if each.chunk_size == trial.chunk_size:
                trial = Trial(
                    trial.chunk_size,
                    min(trial.seconds, each.seconds),
                    trial.peak_bytes or each.peak_bytes,
                    share=trial.share,
                    preparing=trial.preparing,
                )
        trials = sorted([*others, trial], key=lambda each: each.chunk_size)
        return replace(self, trials=tuple(trials))

    def compiled(self, trial: Trial) -> Costs:
        """Return the costs of kernels that were compiled for chunks of one size, and have run."""
        return replace(self, trials=(trial,), first_seconds=0.0)

    def with_first(self, seconds: float) -> Costs:
        """Return the costs with the time that the first chunk took, compared with a later one."""
        again = min(trial.seconds for trial in self.trials[:1])
        return replace(self, first_seconds=max(0.0, seconds - again))

    def line_seconds(self, chunk_size: int) -> float:
        """Return the seconds to compute a line in chunks of a size."""
        if self.is_loop:
            return min(trial.line_seconds for trial in self.trials)
        nearest = min(self.trials, key=lambda trial: abs(math.log(trial.chunk_size / chunk_size)))
        return nearest.line_seconds

    def seconds(self, chunk_size: int) -> float:
        """Return the seconds of the whole run in chunks of a size."""
        blocks = math.ceil(self.lines / chunk_size)
        last = min(chunk_size, self.lines) * self.line_bytes / _WRITTEN_BYTES_PER_SECOND
        computing = self.lines * self.line_seconds(chunk_size) * self.share + self.opening_seconds
        return computing + blocks * SECONDS_OF_A_BLOCK + last

    @property
    def line_memory(self) -> float:
        """Bytes by which the peak grows with each line of a chunk (m1)."""
        first, last = self.trials[0], self.trials[-1]
        if len(self.trials) > 2:  # the memory of one line may be hidden in what is held anyway
            first = self.trials[-2]
        grown = last.peak_bytes - first.peak_bytes
        slope = grown / max(1, last.chunk_size - first.chunk_size)
        return max(slope, self.line_bytes)

    def peak_bytes(self, chunk_size: int) -> int:
        """Return the peak of memory while chunks of a size are computed and written."""
        nearest = max(
            (trial for trial in self.trials if trial.chunk_size <= chunk_size),
            key=lambda trial: trial.chunk_size,
            default=self.trials[0],
        )
        more = (chunk_size - nearest.chunk_size) * self.line_memory
        blocks = BLOCKS_IN_FLIGHT if self.on_host else chunk_size < self.lines
        waiting = blocks * chunk_size * self.line_bytes
        computing = max(self.trials[0].peak_bytes, round(nearest.peak_bytes + more)) + waiting
        return max(self.opening_bytes, computing)

    @property
    def promised_seconds(self) -> float:
        """Predicted seconds of the run in larger chunks than were measured.

        Each step is taken to save half of the share that the step before it saved; after a single
        trial nothing is known, and the next step may save everything.
        """
        if len(self.trials) < 2:
            return 0.0
        before, now = (self.seconds(trial.chunk_size) for trial in self.trials[-2:])
        return now * (1 - max(0.0, before - now) / before / 2)

    def ladder(self) -> list[int]:
        """Return the chunk sizes that are worth measuring: powers of four, and all lines.

        At many points, sizes below one point are of its parts, and larger ones of whole points.
        """
        sizes, most = [self.smallest], self.largest or self.lines
        while sizes[-1] * LADDER < most:
            larger = sizes[-1] * LADDER
            # From parts of a point to whole points.
            sizes.append(self.unit if sizes[-1] < self.unit < larger else larger)
        return sizes if sizes[-1] >= most else [*sizes, most]

    @property
    def smallest(self) -> int:
        """The smallest chunk size that can be computed by itself."""
        return 1 if self.is_divisible else max(1, self.unit)

    def best_chunk(self, budget: int) -> int | None:
        """Return the fastest chunk size within a budget of bytes; None if not even one line fits.

        Of sizes that are about as fast, it is the smallest.
        """
        sizes = self.ladder() if self.is_loop else [trial.chunk_size for trial in self.trials]
        fitting = [size for size in sizes if self.fits(size, budget)]
        if not fitting:
            return None
        fastest = min(map(self.seconds, fitting))
        return next(size for size in fitting if self.seconds(size) <= _CLOSE * fastest)

    def best_seconds(self, budget: int) -> float:
        """Return the seconds of the run in chunks of the best size; infinite if none fits."""
        best = self.best_chunk(budget)
        return math.inf if best is None else self.seconds(best)

    def fits(self, chunk_size: int, budget: int) -> bool:
        """Return whether a chunk stays within a budget of bytes and the time limit per block."""
        is_short = chunk_size * self.line_seconds(chunk_size) <= _LONGEST_BLOCK_SECONDS
        is_short |= self.has_long_blocks
        return self.peak_bytes(chunk_size) <= budget and (is_short or chunk_size <= self.smallest)


def even_chunk(chunk_size: int, lines: int, unit: int = 1) -> int:
    """Return a chunk size that makes blocks even, and whole tiles where they are wide.

    Args:
        chunk_size: The largest chunk size.
        lines: The number of rows or columns.
        unit: The number of lines that belong to one of many points; 1 at a single point.
    """
    chunk_size = max(1, min(chunk_size, lines))
    if unit > 1:
        points = even_chunk(chunk_size // unit, lines // unit) if chunk_size >= unit else 0
        return points * unit or even_chunk(chunk_size, unit)
    if chunk_size >= lines:
        return chunk_size
    even = math.ceil(lines / math.ceil(lines / chunk_size))
    aligned = math.ceil(even / _ALIGNED) * _ALIGNED
    return aligned if aligned <= chunk_size else even
