"""A worker process: builds the function on its device and computes the blocks of its tasks."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

import torch
from torch import Tensor

from autodiff_core import Axis, Block, silent_fallbacks
from jobs.configuration.schema import JobConfig
from jobs.errors import JobError, OutOfMemoryError, StrategyError, causes_of, failing_strategy
from jobs.execution.local_source import compute_block
from jobs.execution.workers.copies import CopiesFromDevice, CopiesOnHost
from jobs.execution.workers.live_configs import unpacked_config
from jobs.execution.workers.messages import (
    Assignment,
    Done,
    Failed,
    Leave,
    Lost,
    Ready,
    Task,
    TooLarge,
)
from jobs.execution.workers.shared_buffers import SharedBuffers
from jobs.functions.failures import explaining_failures
from jobs.functions.kernels import differentiable_kernels
from jobs.functions.live.transport import Parcel
from jobs.job import Job, resolve
from jobs.machine.accelerator import copies_overlap, device_name, make_current
from jobs.machine.measurement import forget_peak, peak_memory, release_memory
from jobs.machine.warm_up import warm_up
from jobs.strategies import LOOPS
from jobs.streams.opening import open_job_stream
from jobs.streams.stream import Stream, stored_dtype
from jobs.verification.check import Check

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def work(connection: Connection, parent: int) -> None:
    """Compute blocks until the job says to leave; runs in a separate process.

    Args:
        connection: To the job, which first sends an `Assignment`.
        parent: The process number of the job; the worker ends when that process ends.
    """
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        return
    # Signals are for the job, which passes them on to its workers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # The message is pickled plainly: torch would move its tensors through files of /dev/shm.
    assignment: Assignment = pickle.loads(connection.recv_bytes())
    # Descriptors arrive in the order in which they were sent.
    config = assignment.config
    shared = recv_handle(connection) if isinstance(config, Parcel) else None
    assignment.arithmetic.restore()
    if assignment.threads is not None:
        torch.set_num_threads(assignment.threads)
    buffers = SharedBuffers(
        assignment.buffers, assignment.buffer_bytes, descriptor=recv_handle(connection)
    )
    try:
        if isinstance(config, Parcel):
            assert shared is not None
            config = unpacked_config(config, shared)
        with differentiable_kernels(), silent_fallbacks():
            _Worker(assignment, config, connection, buffers).run()
    except StrategyError as error:
        connection.send(Failed(str(error), is_of_strategy=True, is_wrong=error.is_wrong))
    except JobError as error:
        connection.send(Failed(str(error)))
    except RuntimeError as error:
        if not _is_device_lost(error):
            raise
        connection.send(Lost(str(error).splitlines()[0]))


def _is_device_lost(error: BaseException | None) -> bool:
    """Return whether a failure makes the device useless for this process.

    Args:
        error: The exception; its causes count as well.
    """
    return any(isinstance(each, torch.AcceleratorError) for each in causes_of(error))


class _Worker:
    def __init__(
        self,
        assignment: Assignment,
        config: JobConfig,
        connection: Connection,
        buffers: SharedBuffers,
    ) -> None:
        self._connection = connection
        self._buffers = buffers
        self._tasks: deque[Task] = deque()
        device = torch.device(assignment.device)
        make_current(device)
        self._job: Job = replace(resolve(config, (device,)), observed=assignment.observed)
        if assignment.compressed is not None:
            from jobs.sparsity.compressed_products import kept_compressed_job

            self._job = kept_compressed_job(self._job, assignment.compressed)
        if self._job.fingerprint != assignment.fingerprint:
            raise JobError(
                "the function or its inputs changed while the job was started; start it again"
            )
        # The stack of a fault goes to the log of the job.
        with suppress(OSError):
            faulthandler.enable(self._job.paths.log.open("a"))
        warm_up()
        with failing_strategy(assignment.strategy):
            self._stream = self._opened(assignment)
        self._check: Check = assignment.check.on(device)
        self._stored = stored_dtype(self._job.storage or self._stream.dtype)
        # The first line captures and verifies the programs, which is a part of getting ready.
        with failing_strategy(assignment.strategy), explaining_failures(self._job.function):
            if self._stream.engine_refusal is None and assignment.strategy not in LOOPS.values():
                self._stream.block(0, assignment.smallest)
        self._copies = (
            CopiesFromDevice(device, buffers) if copies_overlap(device) else CopiesOnHost(buffers)
        )
        forget_peak(device)
        connection.send(Ready(device_name(device)))

    def _opened(self, assignment: Assignment) -> Stream:
        stream = open_job_stream(self._job, assignment.strategy, assignment.engine)
        if stream.axis is assignment.axis:
            return stream
        by_rows = stream.rows_by_symmetry()
        assert by_rows is not None
        return by_rows

    def run(self) -> None:
        """Compute the tasks in the order in which they arrive."""
        while (task := self._next()) is not None:
            started = time.perf_counter()
            reason = None
            try:
                found = compute_block(self._job, self._stream, self._check, task.lines)
            except OutOfMemoryError as error:
                reason = str(error)
            except JobError as error:
                if _is_device_lost(error):
                    self._connection.send(Lost(str(error).splitlines()[0]))
                    return
                raise
            # Here the error, and with it the frames that hold memory, has been released.
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
        """Return the next task; None when there will be none."""
        while True:
            # Announce the block that is still being copied before waiting.
            if not self._tasks and not self._connection.poll():
                self._copies.finish()
            while self._connection.poll(None if not self._tasks else 0):
                message = self._connection.recv()
                if isinstance(message, Leave):
                    return None
                self._tasks.append(message)
            return self._tasks.popleft()


def _lines(block: Block) -> Tensor:
    """Return the entries of a block line by line: shape (lines, across)."""
    return block.values if block.axis is Axis.ROWS else block.values.T
