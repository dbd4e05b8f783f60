"""Choose the devices of a job, and hold them while it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from jobs.configuration.device_names import devices_here, no_such_devices, parse_devices
from jobs.errors import ConfigurationError
from jobs.machine.accelerator import hardware_name, has_dtype
from jobs.machine.device_slots import DeviceSlots


def choose_devices(value: str | Sequence[str], dtype: str) -> tuple[torch.device, ...]:
    """Return the devices that the option `devices` names, one for each process.

    Variables such as ``CUDA_VISIBLE_DEVICES``, which batch systems set too, hide all other devices.
    ``auto`` takes the first accelerator that has the dtype, or the CPU if there is none.

    Args:
        value: The option.
        dtype: The name of the dtype of the point.

    Raises:
        ConfigurationError: This machine has no such device, or the device has no such dtype.
    """
    names, here = parse_devices(value), devices_here()
    if names == ("auto",):
        able = [name for name in here if has_dtype(torch.device(name), getattr(torch, dtype))]
        names = (able[0],) if able else ("cpu",)
    elif here and names == (here[0].partition(":")[0],):
        names = here
    if any(name != "cpu" and name not in here for name in names):
        raise no_such_devices(value, "there is no such device here")
    devices = tuple(torch.device(name) for name in names)
    if not has_dtype(devices[0], getattr(torch, dtype)):
        raise ConfigurationError(
            f"devices={names[0]} dtype={dtype}: {devices[0].type} has no 64-bit floating point; "
            "valid are dtype=float32 there and devices=cpu"
        )
    return devices


@contextmanager
def holding_devices(
    value: str | Sequence[str], dtype: str, tell: Callable[[str], None]
) -> Iterator[tuple[torch.device, ...]]:
    """Hold the slots of the devices of a job while the body runs.

    With ``auto`` the device is one accelerator that no other job of this program holds, with the
    name of a kind the devices are all of them; both wait until the devices are free. A job does not
    wait for devices that are named one by one.

    Args:
        value: The option `devices`.
        dtype: The name of the dtype of the point.
        tell: Called with a sentence when the job waits for devices or shares one.

    Yields:
        The devices.
    """
    devices = choose_devices(value, dtype)
    kind = devices[0].type
    if kind == "cpu":
        yield devices
        return
    slots = DeviceSlots(tell)
    if parse_devices(value) == ("auto",):
        by_name = {hardware_name(device): device for device in choose_devices(kind, dtype)}
        with slots.one_of(list(by_name)) as held:
            yield (by_name[held],)
        return
    is_all = parse_devices(value) == (kind,)
    with slots.all_of([hardware_name(device) for device in devices], wait=is_all):
        yield devices


def threads_of_a_worker(devices: Sequence[torch.device]) -> int | None:
    """Return the threads of each of several processes on a CPU; None for torch's default."""
    if len(devices) == 1 or devices[0].type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, len(os.sched_getaffinity(0)) // len(devices))
