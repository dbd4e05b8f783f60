"""Memory for results that is taken from the system once and used again."""

from __future__ import annotations

import math
import mmap
import sys
import threading

import torch
from torch import Tensor

SMALLEST = 2**21
"""Smaller results are left to torch: its allocator keeps what is freed of them."""

_MOST_TIMES_LARGER = 2
"""A piece that is larger by more than this is given back: smaller chunks are to take less."""

MOST_KEPT = 8
"""So many pieces of memory are looked after; a job has a few blocks under way."""


class ReusedMemory:
    """Memory for tensors on the CPU that nobody uses any more, given out again.

    Large results are given back to the system when they are freed, and it fills their pages with
    zeros when they are taken anew, which can take longer than to compute them. Here a piece of
    memory is given out again once the tensors and arrays that shared it are gone.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._kept: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor of any contents, as `torch.empty` gives it.

        Args:
            shape: Its shape.
            dtype: Its dtype.
            device: Its device; on others than the CPU torch's own allocator is asked.
        """
        elements = math.prod(shape)
        size = elements * dtype.itemsize
        if device.type == "cpu" and size >= SMALLEST:
            # Nobody else may find the same piece free before a tensor holds it.
            with self._lock:
                memory = self._free(size) or self._taken(size)
                if memory is not None:
                    return torch.frombuffer(memory, dtype=dtype, count=elements).view(shape)
        return torch.empty(shape, dtype=dtype, device=device)

    def _free(self, size: int) -> mmap.mmap | None:
        """A piece that is large enough, but not much too large, and that no tensor holds."""
        for place in range(len(self._kept)):
            fits = size <= len(self._kept[place]) <= _MOST_TIMES_LARGER * size
            # One reference is the list's, one that of the question.
            if fits and sys.getrefcount(self._kept[place]) == 2:
                return self._kept[place]
        return None

    def _taken(self, size: int) -> mmap.mmap | None:
        """A new piece, after free ones, which did not fit, have been given back."""
        # And here one is that of the loop.
        self._kept = [memory for memory in self._kept if sys.getrefcount(memory) > 3]
        try:
            memory = _anonymous(size)
        except OSError:  # torch tells best that there is no memory left
            return None
        if len(self._kept) < MOST_KEPT:
            self._kept.append(memory)
        return memory


def _anonymous(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
