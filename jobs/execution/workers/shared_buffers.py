"""Shared memory in which workers return blocks."""

from __future__ import annotations

import mmap
import os


class SharedBuffers:
    """Memory of several blocks that two processes see, without a file.

    It is that of memfd_create(2), because /dev/shm is small in many containers.

    Attributes:
        descriptor: The file descriptor; None where it is closed.
        whole: All buffers.
    """

    def __init__(self, count: int, size: int, descriptor: int | None = None) -> None:
        """Take memory, or that of another process.

        Args:
            count: How many buffers there are.
            size: The bytes of each.
            descriptor: That of the other process's memory, as it is called here.
        """
        self._size = size
        self.descriptor = descriptor
        if self.descriptor is None:
            self.descriptor = os.memfd_create("autodiff-jobs")
            os.truncate(self.descriptor, count * size)
        self.whole = memoryview(mmap.mmap(self.descriptor, count * size))

    def buffer(self, index: int) -> memoryview:
        """One of the buffers."""
        return self.whole[index * self._size : (index + 1) * self._size]

    def close_descriptor(self) -> None:
        """Close the file descriptor; the memory lives until nobody sees it any more."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
