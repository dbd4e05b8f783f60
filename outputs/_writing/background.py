"""Writing while the next block is computed."""

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
# A write takes a tenth of a millisecond whatever it writes: small blocks wait for others, to
# be written as one of up to this size, but no longer than this.
_BYTES_AT_ONCE = 2**20
_SECONDS_OF_PATIENCE = 0.05
# A write into the memory of the system is faster; a disk that is waited for is slower.
_FAST_BYTES_PER_SECOND = 5e8
_SECONDS_OF_A_FAST_WRITE = 2e-3
# A tenth of a core where others want all of it.
_NICENESS = 10


@dataclass(frozen=True)
class _Submitted:
    start: int
    stop: int
    values: np.ndarray
    written: Callable[[], None] | None
    submitted: float


def _give_way() -> None:
    """Lets those that compute have the cores first.

    Threads that compute together wait for one another: a writer that takes the core of one of them
    stops them all (measured on two cores: a third more time for the job).
    """
    # The priority of a thread, which elsewhere is that of the process.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class BackgroundWriter:
    """Writes submitted blocks in order while others are computed; leaving it drains its queue.

    A thread writes them. Where those who compute take all cores, a thread more keeps them waiting
    for one another, and a write that only fills the memory of the system ends before it pays: then
    `submit` may write by itself, until a write takes so long that a disk is waited for.

    Small blocks that follow one another within a moment are written, and committed, as one. After a
    block has failed, the blocks behind it are not written, and the failure is raised in the next
    ``submit`` or at the end of the context.

    Args:
        writer: Used by nobody else while the context is open; it is not closed here.
        shares_cores: Whether what computes the blocks takes all cores of this machine.
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
        """Takes one block as ``ResultWriter.write`` does; waits while the queue is full.

        Args:
            start: First line of the block.
            stop: Line after its last.
            values: The block; not to be changed until it is written.
            written: Is called when the values are not needed any more; who gives one waits for it,
                and so the block waits for no other.

        Raises:
            ResultError: If an earlier block could not be written.
        """
        self._raise_failure()
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._waiting.append(_Submitted(start, stop, values, written, time.monotonic()))
            blocks = self._for_the_submitter()
            self._is_submitter_writing = bool(blocks)
            self._changed.notify_all()
        if blocks:
            self._write(blocks)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with self._changed:
            self._is_ending = True
            # Not any more, also where an interruption came in between.
            self._is_submitter_writing = False
            self._changed.notify_all()
        self._thread.join()
        if error is None:
            self._raise_failure()
        elif self._failure is not None and self._failure is not error:
            error.add_note(f"A block could not be written either: {self._failure}")

    def _has_room(self) -> bool:
        return len(self._waiting) < _DEPTH or not self._is_enough()

    def _is_enough(self) -> bool:
        """Whether what waits is worth a write of its own, or is waited for."""
        size = sum(block.values.nbytes for block in self._waiting)
        return size >= _BYTES_AT_ONCE or any(block.written for block in self._waiting)

    def _for_the_submitter(self) -> list[_Submitted]:
        is_for_here = self._shares_cores and self._is_fast and self._is_due()
        return self._taken() if is_for_here and not self._is_thread_writing else []

    def _is_due(self) -> bool:
        return self._is_enough() or self._patience() <= 0

    def _patience(self) -> float:
        """For how long the first block that waits may go on waiting for others."""
        return self._waiting[0].submitted + _SECONDS_OF_PATIENCE - time.monotonic()

    def _run(self) -> None:
        _give_way()
        while blocks := self._next():
            self._write(blocks)
            del blocks

    def _write(self, blocks: list[_Submitted]) -> None:
        started = time.monotonic()
        # The queue is emptied even after a failure, so that nobody waits for a free place.
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

    def _next(self) -> list[_Submitted]:
        """The blocks that the thread writes next, together; none when there will be no more."""
        with self._changed:
            while not self._is_ending or self._waiting:
                if self._is_submitter_writing or not self._waiting:
                    self._changed.wait()
                elif self._is_ending or self._is_due():
                    self._is_thread_writing = True
                    return self._taken()
                else:
                    self._changed.wait(max(0.0, self._patience()))
            return []

    def _taken(self) -> list[_Submitted]:
        """Takes what is to be written next, together, out of the queue."""
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
        """Whether two blocks are one; what does not fit is left to the writer to refuse."""
        lines = 0 if self._writer.axis == "rows" else 1
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
        lines = 0 if self._writer.axis == "rows" else 1
        return np.concatenate([block.values for block in blocks], axis=lines)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
