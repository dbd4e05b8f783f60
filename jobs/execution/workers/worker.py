"""A worker process: builds the function on its device and computes the blocks it is told to."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodiff_core import Block
from jobs.errors import JobError, OutOfMemoryError
from jobs.execution.local_source import compute_block
from jobs.execution.workers.messages import (
    Assignment,
    Done,
    Failed,
    Leave,
    Lost,
    Ready,
    SharedBuffers,
    Task,
    TooLarge,
)
from jobs.functions.failures import explaining_failures
from jobs.job import Job, resolve
from jobs.machine.device_copies import ready_to_copy
from jobs.machine.measurement import forget_peak, peak_memory, release_memory
from jobs.machine.warm_up import warm_up
from jobs.planning.search import LOOPS
from jobs.records.description import stored_dtype, to_numpy
from jobs.records.provenance import device_name
from jobs.streams.opening import open_stream
from jobs.verification.selection import Proof

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def work(connection: Connection, parent: int) -> None:
    """Compute blocks until told to leave; runs in a process of its own.

    Args:
        connection: To the job, which first sends what to compute and where.
        parent: The number of the job's process, with which this one ends.
    """
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        return
    # Signals are for the job, which tells its workers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # A single message, pickled plainly: torch would move its tensors through files of /dev/shm.
    assignment: Assignment = pickle.loads(connection.recv_bytes())
    if assignment.threads is not None:
        torch.set_num_threads(assignment.threads)
    buffers = SharedBuffers(
        assignment.buffers, assignment.buffer_bytes, descriptor=recv_handle(connection)
    )
    try:
        _Worker(assignment, connection, buffers).run()
    except JobError as error:
        connection.send(Failed(str(error)))
    except RuntimeError as error:
        if not is_device_lost(error):
            raise
        connection.send(Lost(str(error).splitlines()[0]))


def is_device_lost(error: BaseException | None) -> bool:
    """Whether a failure leaves the device without use for this process.

    Args:
        error: What was raised; what it was raised from counts as well.
    """
    while error is not None:
        if isinstance(error, torch.AcceleratorError):
            return True
        error = error.__cause__
    return False


class _Worker:
    def __init__(
        self, assignment: Assignment, connection: Connection, buffers: SharedBuffers
    ) -> None:
        self._connection = connection
        self._buffers = buffers
        self._tasks: deque[Task] = deque()
        self._is_leaving = False
        device = torch.device(assignment.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self._job: Job = resolve(assignment.config, (device,))
        if assignment.compressed is not None:
            from jobs.sparsity.detection import kept_compressed_job

            self._job = kept_compressed_job(self._job, assignment.compressed)
        if self._job.fingerprint != assignment.fingerprint:
            raise JobError(
                "the function or its inputs changed while the job was started; start it again"
            )
        warm_up()
        self._stream: Any = open_stream(self._job, assignment.strategy, assignment.engine)
        if self._stream.axis != assignment.axis:
            self._stream = self._stream.rows_by_symmetry()
        self._proof: Proof = assignment.proof.on(device)
        self._stored = stored_dtype(self._job.storage or self._stream.dtype)
        # A first line captures and proves the programs, which is a part of getting ready.
        with explaining_failures(self._job.function):
            if self._stream.engine_refusal is None and assignment.strategy not in LOOPS.values():
                self._stream.block(0, assignment.smallest)
        self._copies = (
            _CopiesFromDevice(device, buffers) if device.type == "cuda" else _CopiesOnHost(buffers)
        )
        forget_peak()
        connection.send(Ready(device_name(device)))

    def run(self) -> None:
        """Compute tasks in the order in which they come."""
        while (task := self._next()) is not None:
            started = time.perf_counter()
            reason = None
            try:
                found = compute_block(self._job, self._stream, self._proof, task.lines)
            except OutOfMemoryError as error:
                reason = str(error)
            except JobError as error:
                if is_device_lost(error):
                    self._connection.send(Lost(str(error).splitlines()[0]))
                    return
                raise
            # The error, and with it the frames that hold memory, is gone here.
            if reason is not None:
                self._copies.finish()
                release_memory()
                self._connection.send(TooLarge(task, reason))
                continue
            block, error, not_finite = found
            done = Done(
                task,
                error,
                not_finite,
                tuple(map(str, block.fallbacks)),
                self._stream.engine,
                self._stream.engine_refusal,
                time.perf_counter() - started,
                peak_memory(self._job.device),
            )
            self._copies.start(_lines(block), self._stored, task.buffer, self._announce(done))
        self._copies.finish()

    def _announce(self, done: Done) -> Callable[[], None]:
        return lambda: self._connection.send(done)

    def _next(self) -> Task | None:
        """The next task; None when there will be none."""
        while True:
            # What is copied still is announced before this process waits.
            if not self._tasks and not self._connection.poll():
                self._copies.finish()
            while self._connection.poll(None if not self._tasks else 0):
                message = self._connection.recv()
                if isinstance(message, Leave):
                    return None
                self._tasks.append(message)
            return self._tasks.popleft()


def _lines(block: Block) -> Tensor:
    """The entries of a block line by line: shape (lines, across)."""
    return block.values if block.axis == "rows" else block.values.T


class _CopiesOnHost:
    """Copies into shared memory, at once."""

    def __init__(self, buffers: SharedBuffers) -> None:
        self._buffers = buffers

    def start(
        self, lines: Tensor, stored: np.dtype, buffer: int, announce: Callable[[], None]
    ) -> None:
        """Copy and announce."""
        values = to_numpy(lines)
        place = np.frombuffer(self._buffers.buffer(buffer), stored, values.size)
        np.copyto(place.reshape(values.shape), values, casting="same_kind")
        announce()

    def finish(self) -> None:
        """Nothing is under way."""


class _CopiesFromDevice:
    """Copies from a CUDA device on a stream of their own, while the next block is computed.

    The shared memory is registered with the driver, which can then copy into it by itself.
    """

    def __init__(self, device: torch.device, buffers: SharedBuffers) -> None:
        self._buffers = buffers
        self._stream = torch.cuda.Stream(device)
        self._under_way: tuple[torch.cuda.Event, Tensor, Callable[[], None]] | None = None
        self._whole = torch.frombuffer(buffers.whole, dtype=torch.uint8)
        runtime: Any = torch.cuda.cudart()
        runtime.cudaHostRegister(self._whole.data_ptr(), self._whole.numel(), 0)

    def start(
        self, lines: Tensor, stored: np.dtype, buffer: int, announce: Callable[[], None]
    ) -> None:
        """Announce the copy before, and begin this one."""
        self.finish()
        contiguous = ready_to_copy(lines, stored)
        place = torch.frombuffer(
            self._buffers.buffer(buffer), dtype=contiguous.dtype, count=contiguous.numel()
        ).view(contiguous.shape)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            place.copy_(contiguous, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(self._stream)
        # Its memory is not given to the next block while it is read.
        contiguous.record_stream(self._stream)
        self._under_way = (copied, contiguous, announce)

    def finish(self) -> None:
        """Wait for the copy that is under way, and announce it."""
        if self._under_way is not None:
            copied, _, announce = self._under_way
            self._under_way = None
            copied.synchronize()
            announce()
