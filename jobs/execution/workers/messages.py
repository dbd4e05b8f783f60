"""The messages between a job and its worker processes."""

from __future__ import annotations

from dataclasses import dataclass

from autodiff_core import Axis
from jobs.configuration.schema import JobConfig
from jobs.functions.live.transport import Parcel
from jobs.functions.stages import Observed
from jobs.machine.arithmetic import Arithmetic
from jobs.streams.nonfinite import Entries
from jobs.verification.check import Check


@dataclass(frozen=True)
class Assignment:
    """What a worker needs to begin.

    Attributes:
        config: The options, from which the worker builds the function; with objects of a program
            they are a parcel, and its memory follows.
        fingerprint: The fingerprint of the job, which the worker's must equal.
        compressed: The side from which the products of a sparse matrix are computed, ``right`` or
            ``left``; None where the job is no such products.
        device: The name of the device on which the worker computes.
        arithmetic: The settings of torch in the process of the job.
        threads: The number of processor threads that it uses; None leaves it to torch.
        strategy: The chosen strategy.
        engine: ``auto``, or the chosen engine.
        axis: The axis of the matrix along which its blocks follow one another.
        smallest: The smallest number of lines that can be computed by themselves.
        check: The check of the blocks, on the host.
        observed: What is known of the arithmetic of the function.
        buffers: The number of blocks that the shared memory holds.
        buffer_bytes: The size of each.
    """

    config: JobConfig | Parcel
    fingerprint: str
    compressed: str | None
    device: str
    arithmetic: Arithmetic
    threads: int | None
    strategy: str
    engine: str
    axis: Axis
    smallest: int
    check: Check
    observed: Observed | None
    buffers: int
    buffer_bytes: int


@dataclass(frozen=True)
class Task:
    """Compute a block.

    Attributes:
        lines: Its rows or columns.
        buffer: The index of the buffer into which it is put.
    """

    lines: range
    buffer: int


@dataclass(frozen=True)
class Leave:
    """Finish the block that is being computed, and begin no other."""


@dataclass(frozen=True)
class Ready:
    """The worker has built the function.

    Attributes:
        device: The device with the name of its hardware.
    """

    device: str


@dataclass(frozen=True)
class Done:
    """A block has passed, and is in its buffer line by line.

    Attributes:
        task: The task.
        error: The largest relative error that the check found.
        not_finite: The entries that are NaN or infinite.
        fallbacks: Slower ways that were first taken for it, as sentences.
        engine: The engine that computed it.
        engine_refusal: Why that is not the captured one, in one line; None if it is.
        seconds: The time that it took.
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
        reason: The message of the allocator.
    """

    task: Task
    reason: str


@dataclass(frozen=True)
class Failed:
    """The job cannot continue: its function fails, or a block fails the check.

    Attributes:
        message: The message of the `JobError`.
        is_of_strategy: Whether another strategy may compute the job.
        is_wrong: Whether a block has failed the check.
    """

    message: str
    is_of_strategy: bool = False
    is_wrong: bool = False


@dataclass(frozen=True)
class Lost:
    """The worker cannot continue: its device has failed.

    Attributes:
        reason: The message of the driver, in one line.
    """

    reason: str
