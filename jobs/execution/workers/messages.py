"""What a job and its worker processes tell one another, and the memory that they share."""

from __future__ import annotations

from dataclasses import dataclass

from autodiff_core import Axis
from jobs.configuration.schema import JobConfig
from jobs.streams.nonfinite import Entries
from jobs.verification.check import Check


@dataclass(frozen=True)
class Assignment:
    """What a worker begins with.

    Attributes:
        config: The options; the worker builds the function from them.
        fingerprint: That of the job, which the worker's must equal.
        compressed: From which side it computes the products of a sparse matrix; None if none.
        device: Where the worker computes.
        threads: How many threads of the processor it takes; None leaves it to torch.
        strategy: The strategy that was chosen.
        engine: ``auto``, or the engine that was chosen.
        axis: Along which axis of the matrix its blocks are given.
        smallest: How many lines can be computed by themselves.
        check: What blocks are held against, on the host.
        buffers: How many blocks the shared memory holds.
        buffer_bytes: The size of each.
    """

    config: JobConfig
    fingerprint: str
    compressed: str | None
    device: str
    threads: int | None
    strategy: str
    engine: str
    axis: Axis
    smallest: int
    check: Check
    buffers: int
    buffer_bytes: int


@dataclass(frozen=True)
class Task:
    """Compute a block.

    Attributes:
        lines: Its rows or columns.
        buffer: The buffer into which it is put.
    """

    lines: range
    buffer: int


@dataclass(frozen=True)
class Leave:
    """Finish what is being computed, and begin nothing more."""


@dataclass(frozen=True)
class Ready:
    """The worker has built the function.

    Attributes:
        device: The device with the name of its hardware.
    """

    device: str


@dataclass(frozen=True)
class Done:
    """A block has passed, and lies in its buffer line after line.

    Attributes:
        task: The task.
        error: How far it is from the check.
        not_finite: Its entries that are NaN or infinite.
        fallbacks: Slower ways that were first taken, as sentences.
        engine: How it was computed.
        engine_refusal: Why not by a captured program; None if it was.
        seconds: How long it took.
        peak_bytes: The most memory that the worker has used so far.
    """

    task: Task
    error: float
    not_finite: Entries
    fallbacks: tuple[str, ...]
    engine: str
    engine_refusal: str | None
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class TooLarge:
    """A block did not fit into the memory.

    Attributes:
        task: The task.
        reason: What the allocator said.
    """

    task: Task
    reason: str


@dataclass(frozen=True)
class Failed:
    """The job cannot go on: its function fails, or a block fails the check.

    Attributes:
        message: As the job would have told it.
    """

    message: str


@dataclass(frozen=True)
class Lost:
    """The worker cannot go on: its device does not answer any more.

    Attributes:
        reason: What the driver said.
    """

    reason: str
