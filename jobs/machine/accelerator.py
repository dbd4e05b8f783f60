"""What jobs ask of a device: its name, memory, streams and copies, for any kind that torch knows.

All of it goes through `torch.accelerator` and torch's device modules, so that a registered backend
works like CUDA. What a kind has of its own is here and in no other module.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor

_WITHOUT_DOUBLE = ("mps",)
"""The kinds whose hardware has no 64-bit floating point."""


def has_dtype(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a device can hold entries of a dtype."""
    return device.type not in _WITHOUT_DOUBLE or dtype not in (torch.float64, torch.complex128)


def device_name(device: torch.device) -> str:
    """Return a device's name with that of its hardware, or with the number of threads."""
    if device.type == "cpu":
        return f"{device} ({torch.get_num_threads()} threads)"
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return f"{device} ({name(device)})" if name is not None else str(device)


def hardware_name(device: torch.device) -> str:
    """Return a name of a device that does not depend on which others are visible, if it has one."""
    properties = getattr(torch.get_device_module(device), "get_device_properties", None)
    uuid = getattr(properties(device), "uuid", None) if properties is not None else None
    return str(uuid or device)


def make_current(device: torch.device) -> None:
    """Make a device that on which this process allocates by default."""
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index or 0)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that was asked of it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seed_generators(seed: int) -> None:
    """Seed torch's generators, of all devices, as `torch.manual_seed` does.

    It is fast without an accelerator: for each kind of device that may be initialized later,
    `torch.manual_seed` formats the stack of calls, which takes about a millisecond.

    Args:
        seed: The seed.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def same_random_numbers() -> AbstractContextManager[None]:
    """Return a context that ends with torch's generators, of all devices, as it found them."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.random.fork_rng(devices=[])
    # torch warns where there are several devices that are not named.
    devices = range(torch.accelerator.device_count())
    return torch.random.fork_rng(devices, device_type=accelerator.type)


@cache
def has_statistics(device: torch.device) -> bool:
    """Return whether torch's allocator on a device counts the memory in use and its peak."""
    # The allocator of MPS counts, but keeps no peak, and `torch.accelerator` does not reach it.
    if device.type in ("cpu", "mps"):
        return False
    try:
        torch.empty(1, device=device)  # before the first allocation there are no statistics
        return bool(torch.accelerator.memory_stats(device))
    except (RuntimeError, NotImplementedError):
        return False


def device_memory(device: torch.device) -> tuple[int, int] | None:
    """Return the bytes that a job could allocate on a device, and all of its bytes.

    Memory that torch's allocator holds without using it is free for the job. The result is None if
    the backend does not know.
    """
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return total - torch.mps.current_allocated_memory(), total
    try:
        free, total = torch.accelerator.get_memory_info(device)
    except (RuntimeError, NotImplementedError):
        return None
    held = torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)
    return free + held, total


def allocated_memory(device: torch.device) -> int:
    """Return the bytes of the tensors on a device; 0 if the backend does not count them."""
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return torch.accelerator.memory_allocated(device) if has_statistics(device) else 0


def peak_allocated_memory(device: torch.device) -> int:
    """Return the largest number of bytes of tensors on a device since the peak was reset.

    On MPS, which has no such figure, it is the memory that the driver holds for the process.
    """
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return torch.accelerator.max_memory_allocated(device) if has_statistics(device) else 0


def reset_peak(device: torch.device) -> bool:
    """Begin to look for a new peak; return False if the backend keeps none."""
    if not has_statistics(device):
        return False
    torch.accelerator.reset_peak_memory_stats(device)
    return True


def release_cache() -> None:
    """Return memory that torch's allocators hold without using it to the devices."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return
    module: Any = torch.get_device_module(accelerator)
    # A device that this process has not used is not to be initialized by this.
    if not getattr(module, "is_initialized", lambda: True)():
        return
    if hasattr(module, "empty_cache"):
        module.empty_cache()
    elif has_statistics(accelerator):
        torch.accelerator.empty_cache()


def copies_overlap(device: torch.device) -> bool:
    """Return whether a device can copy on one stream while it computes on another."""
    if device.type in ("cpu", "mps"):
        return False
    try:
        torch.Stream(device)
    except (RuntimeError, NotImplementedError):
        return False
    return True


class SideStream:
    """A stream on which blocks are copied to the host while the device computes the next one."""

    def __init__(self, device: torch.device) -> None:
        """Create a stream of a device for which `copies_overlap`."""
        self._device = device
        self._stream = torch.Stream(device)

    def copy(self, source: Tensor, target: Tensor) -> torch.Event:
        """Begin to copy a tensor that the current stream computes; return what tells its end.

        Args:
            source: A tensor on the device; its memory is not reused before the copy has ended.
            target: Page-locked host memory of the same shape and dtype, if the copy is to overlap
                with computing.
        """
        self._stream.wait_stream(torch.accelerator.current_stream(self._device))
        copied = torch.Event(self._device)
        with self._stream:
            target.copy_(source, non_blocking=True)
            copied.record(self._stream)
        # The allocator must not reuse the memory of the source while it is read.
        source.record_stream(self._stream)  # pyright: ignore[reportArgumentType]
        return copied


def lock_pages(memory: Tensor, device: torch.device) -> None:
    """Let the driver of a device copy into existing host memory by itself, where it offers that.

    Other drivers copy into the same memory in steps.
    """
    if device.type == "cuda":
        runtime: Any = torch.cuda.cudart()
        if int(runtime.cudaHostRegister(memory.data_ptr(), memory.numel(), 0)):
            # The runtime keeps the error until a later call, which has nothing to do with it, asks.
            with suppress(RuntimeError):
                torch.zeros(1, device=device)
