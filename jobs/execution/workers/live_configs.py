"""Send options that hold objects of a program to worker processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from jobs.configuration.schema import JobConfig, LiveFunction, LiveLoss, LiveSource
from jobs.errors import JobError
from jobs.functions.live.transport import Packed, Parcel, unpacked
from jobs.functions.source_code import import_of_project
from jobs.functions.tracebacks import one_line


def is_live(config: JobConfig) -> bool:
    """Return whether options hold objects of a program."""
    holders = (config.function, config.loss, config.inputs, config.vectors)
    has_data = getattr(config.function, "held_data", None) is not None
    return has_data or any(isinstance(h, LiveFunction | LiveLoss | LiveSource) for h in holders)


def packed_config(config: JobConfig) -> Packed:
    """Pack options.

    Raises:
        ConfigurationError: An object in them cannot be sent.
    """
    covers = getattr(config.function, "covers", [])
    missed = [each.removeprefix("not covered: ") for each in covers if each.startswith("not ")]
    what = f"devices={config.devices}: {', '.join(missed) or 'the function'}"
    return Packed(config, what)


def shared_memory(packed: Packed) -> int:
    """Return the descriptor of memory without a file that holds the tensors of a parcel."""
    # /dev/shm is small in many containers.
    descriptor = os.memfd_create("autodiff-jobs")
    packed.write(descriptor)
    return descriptor


def unpacked_config(parcel: Parcel, descriptor: int) -> JobConfig:
    """Return the options of a parcel; this process owns the objects.

    Raises:
        JobError: An object cannot be loaded here.
    """
    try:
        config: JobConfig = unpacked(parcel, descriptor)
    # Unpickling runs code of the user.
    except Exception as error:
        raise JobError(
            f"another process cannot load the function that was passed: {one_line(error)}"
        ) from error
    for part in (config.function, config.loss):
        if isinstance(part, LiveFunction | LiveLoss):
            # The fingerprint covers them, and what travels by value does not import them.
            for name in part.modules:
                if name not in sys.modules:
                    import_of_project(name)
    if isinstance(config.function, LiveFunction):
        config.function.is_own = True
    return config


@contextmanager
def without_main() -> Iterator[None]:
    """Let processes that the body starts not import the main module of this one.

    A script that calls `jobs.compute` at its top would call it again in each of them. The console
    script has to be imported: it finds this program's packages where others hide them.
    """
    if "autodiff_jobs" in sys.modules:
        yield
        return
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
