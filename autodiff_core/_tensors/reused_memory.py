"""Memory for results that is allocated once and reused."""

from __future__ import annotations

import math
import mmap
import sys
import threading
from functools import cache

import torch
from torch import Tensor

SMALLEST = 2**21
"""The smallest size in bytes that is reused: torch's allocator itself keeps smaller memory."""

_MOST_TIMES_LARGER = 2
"""A piece that is larger than needed by more than this factor is not reused."""

MOST_KEPT = 8
"""The largest number of pieces of memory that are kept; a job has a few blocks in flight."""


_LARGEST_LEARNED = 2**25 - 2**16
"""A size in bytes just below the largest piece from which glibc's allocator learns."""


@cache
def keep_freed_memory() -> None:
    """Let the C library keep freed memory of the sizes that chunks have, once per process.

    glibc returns freed memory to the system beyond twice the size of the largest piece below 32 MiB
    that was freed so far (M_MMAP_THRESHOLD in mallopt(3)), and then takes it again for the next
    step, filled with zeros. So one such piece is allocated, not touched, and freed: up to 64 MiB
    are kept. Other libraries are not affected.
    """
    torch.empty(_LARGEST_LEARNED, dtype=torch.uint8)


class ReusedMemory:
    """A pool that reuses the memory of large CPU tensors once they are no longer referenced.

    The allocator returns large blocks to the operating system when they are freed, and the system
    fills the pages with zeros when they are allocated again, which can take longer than computing
    the result. The pool hands out a piece of memory again once the tensors and arrays that share
    it are gone.
    """

    def __init__(self) -> None:
        """Create an empty pool."""
        self._kept: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return an uninitialized tensor, like `torch.empty`.

        Args:
            shape: The tensor's shape.
            dtype: The tensor's dtype.
            device: The tensor's device; the pool serves the CPU only, torch's allocator the others.
        """
        elements = math.prod(shape)
        size = elements * dtype.itemsize
        if device.type == "cpu" and size >= SMALLEST:
            # Another thread must not find the same piece free before a tensor references it.
            with self._lock:
                memory = self._free(size) or self._taken(size)
                if memory is not None:
                    return torch.frombuffer(memory, dtype=dtype, count=elements).view(shape)
        return torch.empty(shape, dtype=dtype, device=device)

    def _free(self, size: int) -> mmap.mmap | None:
        """Return a piece of a suitable size that no tensor references, or None."""
        for place in range(len(self._kept)):
            fits = size <= len(self._kept[place]) <= _MOST_TIMES_LARGER * size
            # Two references: the list's, and the argument of getrefcount.
            if fits and sys.getrefcount(self._kept[place]) == 2:
                return self._kept[place]
        return None

    def _taken(self, size: int) -> mmap.mmap | None:
        """Free the unused pieces, none of which fits, and return a new one; None without memory."""
        # Three references: the two above, and that of the loop variable.
        self._kept = [memory for memory in self._kept if sys.getrefcount(memory) > 3]
        try:
            memory = _anonymous(size)
        except OSError:  # torch then raises its own out-of-memory error
            return None
        if len(self._kept) < MOST_KEPT:
            self._kept.append(memory)
        return memory


def _anonymous(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
