"""What a piece of work takes: its time, and the memory at its peak."""

from __future__ import annotations

import ctypes
import gc
import resource
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jobs.machine.process_memory import kernel_figure, peak_resident_memory

_CLEAR = Path("/proc/self/clear_refs")
# To proc(5): forget the largest resident set so far.
_FORGET_PEAK = "5"


@dataclass
class Measurement:
    """What a piece of work took.

    Attributes:
        seconds: Its duration.
        peak_bytes: The most memory in use while it ran: of this process on a CPU, of what is
            allocated on the device elsewhere.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


@contextmanager
def timing(device: torch.device) -> Iterator[Measurement]:
    """Measure the time that the body takes in memory that is at hand; its peak is left at zero."""
    found = Measurement()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    yield found
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    found.seconds = time.perf_counter() - started


@contextmanager
def measuring(device: torch.device) -> Iterator[Measurement]:
    """Measure what the body takes; the figures are there when it has ended.

    What was freed before is given back to the system, so that the peak shows. Taking it anew costs
    time, which `timing` leaves out.

    On CUDA the statistics of the allocator tell the memory. On a CPU it is the kernel's
    high-water mark, which includes what operators use inside; where it cannot be reset (not on
    Linux), the bytes of live tensors are counted on top of what the process occupied.
    """
    found = Measurement()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        yield found
        torch.cuda.synchronize(device)
        found.seconds = time.perf_counter() - started
        found.peak_bytes = torch.cuda.max_memory_allocated(device)
    elif forget_peak():
        started = time.perf_counter()
        yield found
        found.seconds = time.perf_counter() - started
        found.peak_bytes = peak_memory(device)
    else:
        occupied = peak_memory(device)
        with TensorBytes() as counted:
            started = time.perf_counter()
            yield found
            found.seconds = time.perf_counter() - started
        found.peak_bytes = occupied + counted.peak


def peak_memory(device: torch.device) -> int:
    """The most memory that was in use: of the device, or of this process on a CPU, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_memory()


def forget_peak() -> bool:
    """Let the high-water mark of this process begin anew; False where the system cannot."""
    _trim()
    try:
        _CLEAR.write_text(_FORGET_PEAK)
    except OSError:
        return False
    return True


def release_memory() -> None:
    """Give back to the system what is free: a later peak is then not hidden in old free space."""
    gc.collect()
    _trim()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def limited_memory(most: int) -> Iterator[None]:
    """Let allocations fail, as on a full machine, rather than take this process beyond a limit.

    Args:
        most: Bytes that the process may take beyond what it has; on a CPU only.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    data = kernel_figure("VmData")
    if data is None:
        yield
        return
    limit = data + most
    for given in (soft, hard):
        limit = limit if given == resource.RLIM_INFINITY else min(limit, given)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


class TensorBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are created and still alive.

    Attributes:
        live: Bytes now.
        peak: The most at any time.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # As the recorder of the core has it: skipping loads torch's compiler.
        return False

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator and count what it made."""
        result = func(*args, **(kwargs or {}))
        # A view of what was there before takes nothing.
        before = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage._cdata not in before | self._known:
                self._count(storage)
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _storages(tensors: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor)]
