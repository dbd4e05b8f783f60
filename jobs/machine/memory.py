"""The memory that a job may use: what the user allows, or a share of what is free."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from jobs.errors import ConfigurationError
from jobs.machine.accelerator import allocated_memory, device_memory
from jobs.machine.process_memory import kernel_figure, resident_memory

_HOST_SHARE = 0.8
_DEVICE_SHARE = 0.9


@dataclass(frozen=True)
class Budget:
    """The memory that a job may use.

    Attributes:
        bytes: On a CPU the memory of the whole process, on another device the memory that the job
            allocates there.
        reason: Where the figure comes from, for the plan.
    """

    bytes: int
    reason: str


def memory_budget(granted: int | None, device: torch.device, workers: int = 1) -> Budget:
    """Return the budget of a job, or of each of its processes.

    Args:
        granted: The bytes that the user allows; None takes a share of what is free.
        device: The device that computes.
        workers: The number of processes that compute; on a CPU they share the memory.

    Raises:
        ConfigurationError: Nothing is given and the device does not know what is free.
    """
    if device.type != "cpu":
        workers = 1
    shared = f", of each of {workers} processes" if workers > 1 else ""
    if granted is not None:
        return Budget(granted // workers, f"given by the option memory{shared}")
    if device.type != "cpu":
        memory = device_memory(device)
        if memory is None:
            raise ConfigurationError(
                f"memory=auto: {device.type} does not say how much of its memory is free; valid is "
                "a size such as memory=8GiB"
            )
        return Budget(round(_DEVICE_SHARE * memory[0]), f"{_DEVICE_SHARE:.0%} of what is free")
    free, reason = available_host_memory()
    share = round(_HOST_SHARE * free / workers)
    return Budget(resident_memory() + share, f"{_HOST_SHARE:.0%} of what is free{reason}{shared}")


def within_device(budget: Budget, device: torch.device) -> Budget:
    """Return a budget, or what is free on the device where that is less."""
    memory = device_memory(device) if device.type != "cpu" else None
    if memory is None or memory[0] >= budget.bytes:
        return budget
    return Budget(memory[0], f"what is free on {device}")


def memory_in_use(device: torch.device) -> int:
    """Return the bytes in use: resident in this process on a CPU, else allocated there."""
    return resident_memory() if device.type == "cpu" else allocated_memory(device)


def available_host_memory() -> tuple[int, str]:
    """Return the bytes that this process could still take, and what sets the limit.

    The figure is the least of the memory that is free on the machine, the memory that the control
    groups of the process allow (containers and batch systems set them), and the memory that the
    resource limits of the process leave.
    """
    machine = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    figures = [(int(machine[1]) * 1024, "")] if machine else []
    figures += [(free, " in the control group") for free in control_group_memory()]
    for kind, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            figures.append(
                (limit - (kernel_figure(used) or 0), " under the limit of the process (ulimit)")
            )
    free, reason = min(figures)
    return max(0, free), reason


def control_group_memory(
    process: Path = Path("/proc/self"), root: Path = Path("/")
) -> Iterator[int]:
    """Yield the bytes that each control group of the process, version 1 or 2, still allows.

    Args:
        process: The directory of the process in the proc file system.
        root: The directory that the mount points are relative to.
    """
    paths = {}
    for line in _lines(process / "cgroup"):
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(",") if controllers else ["cgroup2"], path)
    for line in _lines(process / "mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        mounted, mount = fields.split(" ")[3:5]
        if kind == "cgroup2" and "cgroup2" in paths:
            names = ("memory.max", "memory.current", "inactive_file")
            path = paths["cgroup2"]
        elif kind == "cgroup" and "memory" in options.split(",") and "memory" in paths:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            path = paths["memory"]
        else:
            continue
        top = root / mount.lstrip("/")
        # Inside a container the mount shows only a part of the hierarchy.
        inner = path.removeprefix(mounted) if mounted != "/" else path
        group = top / inner.lstrip("/")
        for directory in (group, *group.parents):
            if (free := _free_in(directory, *names)) is not None:
                yield free
            if directory == top:
                break


def _free_in(directory: Path, limit: str, used: str, reclaimable: str) -> int | None:
    try:
        most = int((directory / limit).read_text())
        occupied = int((directory / used).read_text())
    except (OSError, ValueError):  # no limit reads "max"
        return None
    cached = [line.split()[1] for line in _lines(directory / "memory.stat") if reclaimable in line]
    return most - occupied + (int(cached[0]) if cached else 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
