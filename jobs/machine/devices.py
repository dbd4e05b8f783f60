"""Choose the devices of a job, and hold them while it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from jobs.configuration.device_names import parse_devices
from jobs.errors import ConfigurationError
from jobs.machine.device_slots import DeviceSlots


def choose_devices(value: str | Sequence[str]) -> tuple[torch.device, ...]:
    """Return the devices that the option `devices` names, one for each process.

    ``CUDA_VISIBLE_DEVICES``, which batch systems set too, hides all other devices. ``auto`` takes
    the first CUDA device, or the CPU if there is none.

    Args:
        value: The option.

    Raises:
        ConfigurationError: This machine has no such device.
    """
    names = parse_devices(value)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if names == ("auto",):
        names = ("cuda:0",) if count else ("cpu",)
    elif names == ("cuda",) and count:
        names = tuple(f"cuda:{index}" for index in range(count))
    devices = tuple(torch.device(name) for name in names)
    if any(device.type == "cuda" and (device.index or 0) >= count for device in devices):
        shown = value if isinstance(value, str) else f"[{','.join(value)}]"
        valid = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
        raise ConfigurationError(
            f"devices={shown}: there is no such device here; valid are {valid}"
        )
    return devices


@contextmanager
def holding_devices(
    value: str | Sequence[str], tell: Callable[[str], None]
) -> Iterator[tuple[torch.device, ...]]:
    """Hold the slots of the devices of a job while the body runs.

    With ``auto`` the device is one CUDA device that no other job of this program holds, with
    ``cuda`` the devices are all of them; both wait until the devices are free. A job does not wait
    for devices that are named one by one.

    Args:
        value: The option `devices`.
        tell: Called with a sentence when the job waits for devices or shares one.

    Yields:
        The devices.
    """
    devices = choose_devices(value)
    if devices[0].type == "cpu":
        yield devices
        return
    slots = DeviceSlots(tell)
    if parse_devices(value) == ("auto",):
        all_here = choose_devices("cuda")
        by_name = {_hardware_name(device): device for device in all_here}
        with slots.one_of(list(by_name)) as held:
            yield (by_name[held],)
        return
    is_all = parse_devices(value) == ("cuda",)
    with slots.all_of([_hardware_name(device) for device in devices], wait=is_all):
        yield devices


def _hardware_name(device: torch.device) -> str:
    """Return a name of a CUDA device that does not depend on which others are visible."""
    return str(torch.cuda.get_device_properties(device).uuid)


def threads_of_a_worker(devices: Sequence[torch.device]) -> int | None:
    """Return the threads of each of several processes on a CPU; None for torch's default."""
    if len(devices) == 1 or devices[0].type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, len(os.sched_getaffinity(0)) // len(devices))


def device_name(device: torch.device) -> str:
    """Return a device's name with that of its hardware, or with the number of threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
