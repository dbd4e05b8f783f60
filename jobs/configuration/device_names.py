"""Parse the option `devices`, without torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jobs.errors import ConfigurationError

_VALID = "valid are auto, cpu, cpu:4 (four processes), cuda (all), cuda:0, [cuda:0,cuda:2]"


def parse_devices(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of devices: ``auto``, ``cuda`` for all of them, or a name per process.

    Args:
        value: The option; ``cpu:4`` stands for four processes on the CPU.

    Raises:
        ConfigurationError: The option names no devices, one twice, or devices of different kinds.
    """
    shown = f"[{','.join(map(str, value))}]" if not isinstance(value, str) else value
    if isinstance(value, str):
        several = re.fullmatch(r"cpu:(\d+)", value)
        if several and int(several[1]):
            return ("cpu",) * int(several[1])
        if re.fullmatch(r"auto|cpu|cuda|cuda:\d+", value):
            return (value,)
    else:
        names = tuple(map(str, value))
        if names and all(re.fullmatch(r"cuda:\d+", name) for name in names):
            if len(set(names)) < len(names):
                raise ConfigurationError(f"devices={shown}: a device is named twice")
            return names
        if names in (("cpu",), ("cuda",), ("auto",)):
            return names
    raise ConfigurationError(f"devices={shown}: {_VALID}")
