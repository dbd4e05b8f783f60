"""Write blocks while the next ones are computed."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from outputs._writing.writer import ResultWriter

_DEPTH = 2
# A write takes at least a tenth of a millisecond, whatever its size: small blocks are collected
# and written as one of up to this size, but no block waits longer than the given time.
_BYTES_AT_ONCE = 2**20
_LONGEST_WAIT_SECONDS = 0.05
# A write into the page cache is faster than this; one that waits for the disk is slower.
_FAST_BYTES_PER_SECOND = 5e8
_SECONDS_OF_A_FAST_WRITE = 2e-3
# This niceness leaves the thread a tenth of a core when other threads want all of it.
_NICENESS = 10


@dataclass(frozen=True)
class _Submitted:
    start: int
    stop: int
    values: np.ndarray
    written: Callable[[], None] | None
    submitted: float


def _lower_priority() -> None:
    """Let computing threads have the cores first.

    Threads that compute in parallel wait for one another, so a writer that takes the core of one
    stops them all (measured on two cores: the job takes a third longer).
    """
    # On Linux this sets the priority of the thread; elsewhere it would be that of the process.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class BackgroundWriter:
    """A context that writes submitted blocks in order in a thread; its exit drains the queue.

    If the computation uses all cores, another thread delays the computing threads, and a write
    that only fills the page cache ends before the thread pays off: then `submit` may write in the
    calling thread, until a write takes so long that it must be waiting for a disk.

    Small adjacent blocks that are submitted shortly after one another are written, and committed,
    as one. After a block has failed, later blocks are not written, and the failure is raised by the
    next ``submit`` or at the end of the context.

    Args:
        writer: The writer; nothing else may use it while the context is open, which does not
            close it.
        shares_cores: Whether the computation of the blocks uses all cores of this machine.
    """

    def __init__(self, writer: ResultWriter, *, shares_cores: bool = False) -> None:
        self._writer = writer
        self._shares_cores = shares_cores
        self._waiting: deque[_Submitted] = deque()
        self._changed = threading.Condition()
        self._is_thread_writing = False
        self._is_submitter_writing = False
        self._is_fast = True
        self._is_ending = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="result-writer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def submit(
        self,
        start: int,
        stop: int,
        values: np.ndarray,
        written: Callable[[], None] | None = None,
    ) -> None:
        """Submit one block as for ``ResultWriter.write``; wait while the queue is full.

        Args:
            start: First line of the block.
            stop: One past the last line.
            values: The block; it must not change until it is written.
            written: Called when the values are no longer needed. A caller that passes it waits
                for the call, so the block is written without waiting for others; None if the
                caller does not wait.

        Raises:
            ResultError: If an earlier block could not be written.
        """
        self._raise_failure()
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._waiting.append(_Submitted(start, stop, values, written, time.monotonic()))
            blocks = self._blocks_for_submitter()
            self._is_submitter_writing = bool(blocks)
            self._changed.notify_all()
        if blocks:
            self._write(blocks)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with self._changed:
            self._is_ending = True
            # An interruption of `submit` may have left this set.
            self._is_submitter_writing = False
            self._changed.notify_all()
        self._thread.join()
        if error is None:
            self._raise_failure()
        elif self._failure is not None and self._failure is not error:
            error.add_note(f"A block could not be written either: {self._failure}")

    def _has_room(self) -> bool:
        return len(self._waiting) < _DEPTH or not self._is_worth_a_write()

    def _is_worth_a_write(self) -> bool:
        """Return whether the queue is large enough for a write, or a caller waits for a block."""
        size = sum(block.values.nbytes for block in self._waiting)
        return size >= _BYTES_AT_ONCE or any(block.written for block in self._waiting)

    def _blocks_for_submitter(self) -> list[_Submitted]:
        """Take the blocks that the submitting thread is to write itself, if there are any."""
        is_for_submitter = self._shares_cores and self._is_fast and self._is_due()
        return self._take() if is_for_submitter and not self._is_thread_writing else []

    def _is_due(self) -> bool:
        return self._is_worth_a_write() or self._seconds_left() <= 0

    def _seconds_left(self) -> float:
        """Return for how long the first block of the queue may still wait for others."""
        return self._waiting[0].submitted + _LONGEST_WAIT_SECONDS - time.monotonic()

    def _run(self) -> None:
        _lower_priority()
        while blocks := self._take_when_due():
            self._write(blocks)
            del blocks

    def _write(self, blocks: list[_Submitted]) -> None:
        started = time.monotonic()
        # The queue is emptied even after a failure, so that no submitter waits for room in it.
        if self._failure is None:
            try:
                self._writer.write(blocks[0].start, blocks[-1].stop, self._joined(blocks))
            except BaseException as error:
                self._failure = error
        for block in blocks:
            if block.written is not None:
                block.written()
        size = sum(block.values.nbytes for block in blocks)
        most = _SECONDS_OF_A_FAST_WRITE + size / _FAST_BYTES_PER_SECOND
        with self._changed:
            self._is_thread_writing = self._is_submitter_writing = False
            self._is_fast = time.monotonic() - started <= most
            self._changed.notify_all()

    def _take_when_due(self) -> list[_Submitted]:
        """Wait for and take the blocks that the thread writes next; none at the end."""
        with self._changed:
            while not self._is_ending or self._waiting:
                if self._is_submitter_writing or not self._waiting:
                    self._changed.wait()
                elif self._is_ending or self._is_due():
                    self._is_thread_writing = True
                    return self._take()
                else:
                    self._changed.wait(max(0.0, self._seconds_left()))
            return []

    def _take(self) -> list[_Submitted]:
        """Take from the queue the adjacent blocks that are written next, as one."""
        blocks = [self._waiting.popleft()]
        size = blocks[0].values.nbytes
        while self._waiting and self._follows(self._waiting[0], blocks[-1]):
            size += self._waiting[0].values.nbytes
            if size > _BYTES_AT_ONCE:
                break
            blocks.append(self._waiting.popleft())
        self._changed.notify_all()
        return blocks

    def _follows(self, block: _Submitted, before: _Submitted) -> bool:
        """Return whether two blocks can be joined; the writer refuses a block of a wrong shape."""
        lines = self._writer.axis.dimension
        return before.stop == block.start and all(
            each.values.ndim == 2
            and each.values.shape[lines] == each.stop - each.start
            and each.values.shape[1 - lines] == block.values.shape[1 - lines]
            and each.values.dtype == block.values.dtype
            for each in (before, block)
        )

    def _joined(self, blocks: list[_Submitted]) -> np.ndarray:
        if len(blocks) == 1:
            return blocks[0].values
        return np.concatenate([block.values for block in blocks], axis=self._writer.axis.dimension)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
