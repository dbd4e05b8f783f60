"""Measure the time and the peak memory of a piece of work."""

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

from jobs.machine.accelerator import (
    peak_allocated_memory,
    release_cache,
    reset_peak,
    synchronize,
)
from jobs.machine.contention import longest_delay, run_delays
from jobs.machine.process_memory import kernel_figure, peak_resident_memory

_CLEAR = Path("/proc/self/clear_refs")
# What proc(5) takes to reset the peak of the resident set.
_FORGET_PEAK = "5"


@dataclass
class Measurement:
    """The cost of a piece of work.

    Attributes:
        seconds: Its duration; on a CPU without the time that it waited for a processor, which
            other programs occupied.
        waited: The seconds that it waited.
        peak_bytes: The peak of memory in use while it ran: the memory of this process on a CPU,
            the memory allocated on the device otherwise.
    """

    seconds: float = 0.0
    waited: float = 0.0
    peak_bytes: int = 0


@contextmanager
def timing(device: torch.device) -> Iterator[Measurement]:
    """Measure the time of the body with memory already available; leave its peak at zero."""
    found = Measurement()
    synchronize(device)
    before = run_delays() if device.type == "cpu" else {}
    started, computed = time.perf_counter(), time.thread_time()
    yield found
    synchronize(device)
    seconds, computed = time.perf_counter() - started, time.thread_time() - computed
    # The kernel notes late what a thread has run and waited, and which others waited meanwhile:
    # the body took at least as long as this thread has run.
    delay = longest_delay(before, run_delays() if before else {})
    found.waited = max(0.0, min(delay, seconds - computed))
    found.seconds = seconds - found.waited


@contextmanager
def measuring(device: torch.device) -> Iterator[Measurement]:
    """Measure time and peak memory of the body; the figures are set when it has ended.

    Freed memory is returned to the system first, so that the peak shows. Allocating it again costs
    time, which `timing` leaves out.

    On a CPU the memory is the kernel's high-water mark, which includes the temporary memory of
    operators, elsewhere that of the allocator's statistics. Where neither can be reset (MPS, or not
    on Linux), the bytes of live tensors are added to the peak before.
    """
    synchronize(device)
    if forget_peak(device):
        with timing(device) as found:
            yield found
        found.peak_bytes = peak_memory(device)
    else:
        occupied = peak_memory(device)
        with TensorBytes() as counted, timing(device) as found:
            yield found
        found.peak_bytes = occupied + counted.peak


def peak_memory(device: torch.device) -> int:
    """Return the peak of memory in use, in bytes: of this process on a CPU, else of the device."""
    return peak_resident_memory() if device.type == "cpu" else peak_allocated_memory(device)


def forget_peak(device: torch.device) -> bool:
    """Let `peak_memory` begin anew; return False if neither system nor allocator can."""
    _trim()
    if device.type != "cpu":
        return reset_peak(device)
    try:
        _CLEAR.write_text(_FORGET_PEAK)
    except OSError:
        return False
    return True


def release_memory() -> None:
    """Return free memory to the system, so that a later peak is not hidden in it."""
    gc.collect()
    _trim()
    release_cache()


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def limited_memory(most: int) -> Iterator[None]:
    """Let allocations beyond a limit fail while the body runs, as on a machine without free memory.

    Args:
        most: The bytes of host memory that the process may take beyond what it has.
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
        live: The bytes now.
        peak: The largest value of `live` so far.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # As in the recorder of autodiff_core: skipping would load torch's compiler.
        return False

    def __init__(self) -> None:
        """Begin with no tensors."""
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator and count the tensors that it creates."""
        result = func(*args, **(kwargs or {}))
        # A view of an existing tensor takes no memory.
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
