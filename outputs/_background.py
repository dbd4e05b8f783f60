"""Writing while the next block is computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Self

import numpy as np

from outputs._writer import ResultWriter

_DEPTH = 2


class BackgroundWriter:
    """A thread that writes submitted blocks in order; leaving the context drains its queue.

    h5py releases the interpreter's lock while it writes, so writing overlaps with computing.
    After a block has failed, the blocks behind it are not written, and the failure is raised in
    the next ``submit`` or at the end of the context.

    Args:
        writer: Used by nobody else while the context is open; it is not closed here.
    """

    def __init__(self, writer: ResultWriter) -> None:
        self._writer = writer
        self._queue: queue.Queue[tuple[int, int, np.ndarray, Callable[[], None]] | None] = (
            queue.Queue(_DEPTH)
        )
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
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """Queues one block as ``ResultWriter.write`` takes it; blocks while the queue is full.

        Args:
            start: First line of the block.
            stop: Line after its last.
            values: The block; not to be changed until it is written.
            written: Is called, in the thread, when the values are not needed any more.

        Raises:
            ResultError: If an earlier block could not be written.
        """
        self._raise_failure()
        self._queue.put((start, stop, values, written))

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._raise_failure()
        elif self._failure is not None and self._failure is not error:
            error.add_note(f"A block could not be written either: {self._failure}")

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            # The queue is emptied even after a failure, so that nobody waits for a free place.
            if self._failure is None:
                try:
                    self._writer.write(*block[:3])
                except BaseException as error:
                    self._failure = error
            block[3]()
            del block

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
