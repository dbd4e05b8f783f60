"""The worker processes of a job, one for each device, and the chunks that they compute."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import send_handle
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from autodiff_core import Axis
from jobs.errors import JobError, StrategyError
from jobs.execution.block_sources import ComputedBlock, Remaining
from jobs.execution.preparation import Prepared
from jobs.execution.workers.live_configs import is_live, packed_config, shared_memory, without_main
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
from jobs.execution.workers.worker import work
from jobs.machine.arithmetic import Arithmetic
from jobs.machine.devices import threads_of_a_worker
from jobs.machine.supervision import FAULTS, out_of_memory_kills

_logger = logging.getLogger(__name__)

# Of three blocks one is being computed, one waits for that, and one is being written.
_TASKS = 2
_BUFFERS = 3
_MOST_DEATHS = 2
_SECONDS_TO_END = 5.0
# What batch systems and terminals send to all processes of a job.
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}


@dataclass
class _WorkerHandle:
    """A worker as the job sees it."""

    device: str
    process: SpawnProcess
    connection: Connection
    buffers: SharedBuffers
    free: deque[int]
    tasks: deque[Task] = field(default_factory=deque)
    is_alive: bool = True
    is_ready: bool = False
    is_lost: bool = False
    reason: str = ""
    engine: str = ""
    engine_refusal: str | None = None
    blocks: int = 0
    lines: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0


class WorkerPool:
    """Blocks computed by several processes, in the order in which they are ready.

    The death of a worker is reported, and its chunks are handed out again. A chunk's entries do
    not depend on the worker that computes it, nor the chunks on the number of workers.

    Attributes:
        shares_cores: False, because this process only writes.
    """

    shares_cores = False

    def __init__(self, prepared: Prepared, note: Callable[[str], None]) -> None:
        """Keep what workers begin with; the context starts them.

        Args:
            prepared: The job, how it is computed, and the check of its blocks.
            note: Called with a sentence when a worker is lost.
        """
        job, decision = prepared.job, prepared.decision
        self._devices = job.devices
        self._facts = prepared.facts
        self._stored = np.dtype(prepared.description.dtype)
        self._axis = prepared.description.axis
        # Of a diagonal a line has one entry.
        self._across = self._axis.across(prepared.description.shape)
        self._note = note
        self._deaths: Counter[int] = Counter()
        self._started = time.monotonic()
        self._seconds_to_start = 0.0
        self._kills_before = out_of_memory_kills()
        self._workers: list[_WorkerHandle] = []
        # The thread that writes wakes the one that waits for workers.
        self._waker, self._woken = multiprocessing.Pipe()
        self._packed = packed_config(job.config) if is_live(job.config) else None
        self._shared = self._packed and shared_memory(self._packed)
        # Where a point is not divisible a block of it may be larger than a chunk.
        lines = max(1, decision.chunk_size, self._facts.smallest)
        self._assignment = partial(
            Assignment,
            config=self._packed.parcel if self._packed else job.config,
            fingerprint=job.fingerprint,
            compressed=job.compressed,
            arithmetic=Arithmetic.of_this_process(),
            threads=threads_of_a_worker(job.devices),
            strategy=decision.strategy,
            engine=decision.engine,
            axis=self._facts.axis,
            smallest=self._facts.smallest,
            check=prepared.check.on(torch.device("cpu")),
            observed=prepared.job.observed,
            buffers=_BUFFERS,
            buffer_bytes=max(1, lines * self._across * self._stored.itemsize),
        )

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        # A signal for the job must not end a worker before it ignores signals.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            for device in self._devices:
                self._workers.append(self._start(context, str(device)))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if self._shared is not None:
                os.close(self._shared)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            if worker.is_alive and error is None:
                with contextlib.suppress(OSError):
                    worker.connection.send(Leave())
        for worker in self._workers:
            worker.process.join(_SECONDS_TO_END if error is None else 0)
            worker.process.kill()
            worker.process.join()
            worker.connection.close()

    def _start(self, context: Any, device: str) -> _WorkerHandle:
        assignment = self._assignment(device=device)
        ours, theirs = context.Pipe()
        process = context.Process(
            target=work, args=(theirs, os.getpid()), name=f"worker-{device}", daemon=True
        )
        with without_main():
            process.start()
        theirs.close()
        buffers = SharedBuffers(_BUFFERS, assignment.buffer_bytes)
        ours.send_bytes(pickle.dumps(assignment))
        if self._shared is not None:
            send_handle(ours, self._shared, process.pid)
        assert buffers.descriptor is not None
        send_handle(ours, buffers.descriptor, process.pid)
        buffers.close_descriptor()
        return _WorkerHandle(device, process, ours, buffers, deque(range(_BUFFERS)))

    def blocks(
        self, remaining: Remaining, is_leaving: Callable[[], bool]
    ) -> Generator[ComputedBlock, None, None]:
        """Yield the remaining blocks, in the order in which they are ready.

        When the job is leaving, workers finish the blocks that they are computing.

        Raises:
            JobError: The function fails, no worker is left, or a chunk has ended two workers.
        """
        has_left = False
        while True:
            if is_leaving() and not has_left:
                has_left = True
                for worker in self._living():
                    worker.connection.send(Leave())
            if not has_left:
                self._hand_out(remaining)
            # What remains while no worker has a task waits for a buffer that is being written.
            is_done = remaining.is_empty and not any(worker.tasks for worker in self._living())
            if is_done and not has_left:
                return
            if not self._living():
                return
            by_connection: dict[Any, _WorkerHandle] = {
                worker.connection: worker for worker in self._living()
            }
            # Wake now and then without a message: a signal may have arrived.
            for ready in wait([*by_connection, self._woken], timeout=0.5):
                if ready is self._woken:
                    self._woken.recv_bytes()
                    continue
                worker = by_connection[ready]
                try:
                    message = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    self._take_back(worker, remaining, has_left)
                    continue
                block = self._receive(worker, message, remaining)
                if block is not None:
                    yield block

    def figures(self) -> dict[str, Any]:
        """Return how products were computed, and what each worker did."""
        workers = [
            {
                "device": worker.device,
                "engine": worker.engine,
                "blocks": worker.blocks,
                "lines": worker.lines,
                "seconds": worker.seconds,
                "peak_memory_bytes": worker.peak_bytes,
                **({"lost": worker.reason} if worker.is_lost else {}),
            }
            for worker in self._workers
        ]
        engines = {worker.engine for worker in self._workers if worker.engine}
        refusals = {worker.engine_refusal for worker in self._workers if worker.engine_refusal}
        return {
            "engine": ", ".join(sorted(engines)),
            "seconds_to_start": self._seconds_to_start,
            "engine_refusal": "; ".join(sorted(refusals)) or None,
            "workers": workers,
        }

    def _living(self) -> list[_WorkerHandle]:
        return [worker for worker in self._workers if worker.is_alive]

    def _hand_out(self, remaining: Remaining) -> None:
        # Give each worker one task before any gets a second: the last chunks are shared evenly.
        for most in range(1, _TASKS + 1):
            for worker in self._living():
                if len(worker.tasks) >= most or not worker.free:
                    continue
                lines = remaining.take()
                if lines is None:
                    return
                task = Task(lines, worker.free.popleft())
                worker.tasks.append(task)
                # The death of a worker is noticed where its messages are read.
                with contextlib.suppress(OSError):
                    worker.connection.send(task)

    def _receive(
        self, worker: _WorkerHandle, message: Any, remaining: Remaining
    ) -> ComputedBlock | None:
        if isinstance(message, Ready):
            worker.is_ready = True
            worker.device = message.device
            if not self._seconds_to_start:
                self._seconds_to_start = time.monotonic() - self._started
        elif isinstance(message, Failed):
            if message.is_of_strategy:
                raise StrategyError(message.message, is_wrong=message.is_wrong)
            raise JobError(message.message)
        elif isinstance(message, Lost):
            worker.reason = message.reason
        elif isinstance(message, TooLarge):
            worker.tasks.remove(message.task)
            worker.free.append(message.task.buffer)
            # Another worker may have reported the same for the previous size.
            if len(message.task.lines) >= remaining.chunks.size:
                remaining.chunks.halve(message.task.lines.start, self._facts.axis, message.reason)
            remaining.put_back(message.task.lines)
        elif isinstance(message, Done):
            return self._block(worker, message)
        return None

    def _block(self, worker: _WorkerHandle, done: Done) -> ComputedBlock:
        worker.tasks.remove(done.task)
        lines, across = len(done.task.lines), self._across
        worker.blocks += 1
        worker.lines += lines
        worker.seconds += done.seconds
        worker.peak_bytes = done.peak_bytes
        worker.engine, worker.engine_refusal = done.engine, done.engine_refusal
        place = worker.buffers.buffer(done.task.buffer)
        values = np.frombuffer(place, self._stored, lines * across).reshape(lines, across)
        return ComputedBlock(
            done.task.lines.start,
            done.task.lines.stop,
            values if self._axis == Axis.ROWS else values.T,
            done.error,
            done.not_finite,
            done.fallbacks,
            partial(self._release, worker, done.task.buffer),
        )

    def _release(self, worker: _WorkerHandle, buffer: int) -> None:
        """Free a buffer and wake the pool; called by the thread that writes."""
        worker.free.append(buffer)
        self._waker.send_bytes(b"")

    def _take_back(self, worker: _WorkerHandle, remaining: Remaining, has_left: bool) -> None:
        """Note that a worker has ended, and take back the chunks that it was given.

        Raises:
            JobError: Its chunk has ended two workers, or no worker is left.
        """
        worker.is_alive = False
        worker.process.join(_SECONDS_TO_END)
        if has_left:
            return
        worker.is_lost = True
        worker.reason = worker.reason or _how_it_ended(worker.process.exitcode)
        for task in reversed(worker.tasks):
            remaining.put_back(task.lines)
        # It was computing the first one; the others waited.
        lines = worker.tasks[0].lines if worker.tasks else None
        worker.tasks.clear()
        axis, left = self._facts.axis, len(self._living())
        again = f"; {axis} {lines.start} to {lines.stop} go to another" if lines else ""
        self._note(f"the worker on {worker.device} {worker.reason}{again}; {left} left")
        if lines is not None and worker.is_ready:
            self._blame(lines, worker, remaining)
        if not left:
            last = f"no worker is left (the last, on {worker.device}, {worker.reason})"
            if _is_fault(worker):
                raise StrategyError(last)
            raise JobError(f"{last}; what was computed is kept, and the same command resumes")

    def _blame(self, lines: range, worker: _WorkerHandle, remaining: Remaining) -> None:
        """Halve the chunks if memory ran out; else count the death against the chunk."""
        axis = self._facts.axis
        if out_of_memory_kills() != self._kills_before:
            self._kills_before = out_of_memory_kills()
            reason = "the system killed a worker because memory ran out"
            remaining.chunks.halve(lines.start, axis, reason)
            return
        self._deaths[lines.start] += 1
        if self._deaths[lines.start] >= _MOST_DEATHS:
            ended = (
                f"{axis} {lines.start} to {lines.stop} have ended two workers (the last "
                f"{worker.reason})"
            )
            if _is_fault(worker):
                raise StrategyError(ended)
            raise JobError(
                f"{ended}; what was computed is kept. devices=cpu computes in a single "
                "process, whose messages tell more"
            )


def _is_fault(worker: _WorkerHandle) -> bool:
    return worker.process.exitcode is not None and -worker.process.exitcode in FAULTS


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed ({signal.Signals(-code).name})"
    return f"ended with the exit code {code}"
