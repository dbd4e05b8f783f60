"""Shared memory in which workers return blocks."""

from __future__ import annotations

import mmap
import os


class SharedBuffers:
    """Memory for several blocks that two processes share, without a file.

    It comes from memfd_create(2), because /dev/shm is small in many containers.

    Attributes:
        descriptor: The file descriptor; None after it was closed.
        whole: The memory of all buffers.
    """

    def __init__(self, count: int, size: int, descriptor: int | None = None) -> None:
        """Allocate the memory, or map that of another process.

        Args:
            count: The number of buffers.
            size: The bytes of each.
            descriptor: The descriptor, in this process, of the other process's memory.
        """
        self._size = size
        self.descriptor = descriptor
        if self.descriptor is None:
            self.descriptor = os.memfd_create("autodiff-jobs")
            os.truncate(self.descriptor, count * size)
        self.whole = memoryview(mmap.mmap(self.descriptor, count * size))

    def buffer(self, index: int) -> memoryview:
        """Return one of the buffers."""
        return self.whole[index * self._size : (index + 1) * self._size]

    def close_descriptor(self) -> None:
        """Close the file descriptor; the memory lives as long as a process maps it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
