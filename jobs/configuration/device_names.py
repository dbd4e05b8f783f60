"""Parse the option `devices`; torch is loaded only to say which devices there are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jobs.errors import ConfigurationError

_KIND = r"[a-z][a-z0-9_]*"


def parse_devices(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of devices: ``auto``, a kind for all of its devices, or a name per process.

    Args:
        value: The option; ``cpu:4`` stands for four processes on the CPU.

    Raises:
        ConfigurationError: The option names no devices, one twice, or devices of different kinds.
    """
    if isinstance(value, str):
        several = re.fullmatch(r"cpu:(\d+)", value)
        if several and int(several[1]):
            return ("cpu",) * int(several[1])
        if re.fullmatch(rf"{_KIND}|(?!cpu:|auto:){_KIND}:\d+", value):
            return (value,)
        raise no_such_devices(value, "this names no device")
    names = tuple(map(str, value))
    if len(names) == 1 and re.fullmatch(_KIND, names[0]):
        return names
    kinds = {name.partition(":")[0] for name in names}
    if not names or not all(re.fullmatch(rf"{_KIND}:\d+", name) for name in names):
        raise no_such_devices(value, "a list names each device with its number")
    if kinds & {"cpu", "auto"} or len(kinds) > 1:
        raise no_such_devices(value, "the devices of a job are of one kind")
    if len(set(names)) < len(names):
        raise no_such_devices(value, "a device is named twice")
    return names


def devices_here() -> tuple[str, ...]:
    """Return the names of the devices of this machine beside the CPU, as torch sees them."""
    import torch

    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return ()
    return tuple(f"{kind.type}:{index}" for index in range(torch.accelerator.device_count()))


def no_such_devices(value: str | Sequence[str], reason: str) -> ConfigurationError:
    """Return the error for devices that do not exist, which lists those that do.

    Args:
        value: The option.
        reason: What is wrong with it, as a clause.
    """
    shown = value if isinstance(value, str) else f"[{','.join(map(str, value))}]"
    here = devices_here()
    valid = ["auto", "cpu", "cpu:4 (four processes)"]
    if here:
        valid += [f"{here[0].partition(':')[0]} (all)", *here]
    if len(here) > 1:
        valid.append(f"[{here[0]},{here[1]}]")
    return ConfigurationError(f"devices={shown}: {reason}; valid here are {', '.join(valid)}")
