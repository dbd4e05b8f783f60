"""A slot for each device, which at most one job of this machine holds at a time.

A slot is a file locked by the kernel (flock(2)): the kernel frees it when its holder ends for any
reason. Assigning devices by job number modulo the number of devices would let jobs collide as soon
as they take different times.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

_SECONDS_BETWEEN_ATTEMPTS = 0.25


class DeviceSlots:
    """The slots of the devices of this machine.

    Args:
        tell: Called with a sentence when a job waits for slots or shares a device.
        directory: The directory of the files; None takes a directory of this user.
    """

    def __init__(self, tell: Callable[[str], None], directory: Path | None = None) -> None:
        self._tell = tell
        self._directory = directory or Path(tempfile.gettempdir()) / f"autodiff-jobs-{os.getuid()}"

    @contextmanager
    def one_of(self, names: Sequence[str]) -> Iterator[str]:
        """Hold the slot of one device, the first that is or becomes free.

        Args:
            names: Names of the devices that do not depend on the process, such as their UUIDs.

        Yields:
            The name of the device that is held.
        """
        has_told = False
        while True:
            for name in names:
                with self._attempt(name) as is_held:
                    if is_held:
                        yield name
                        return
            if not has_told:
                self._tell(f"waiting for one of {len(names)} devices, which other jobs hold")
                has_told = True
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)

    @contextmanager
    def all_of(self, names: Sequence[str], *, wait: bool) -> Iterator[None]:
        """Hold the slots of several devices.

        Args:
            names: The names of the devices.
            wait: Whether to wait for devices that other jobs hold; otherwise they are shared.
        """
        with ExitStack() as held:
            # All jobs take slots in the same order, so that no two wait for each other.
            for name in sorted(names):
                if wait:
                    held.enter_context(self.one_of([name]))
                elif not held.enter_context(self._attempt(name)):
                    self._tell("another job uses a device of this job; they share it")
            yield

    @contextmanager
    def _attempt(self, name: str) -> Iterator[bool]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file_name = re.sub(r"[^\w.-]", "-", name)
        path = self._directory / f"{file_name}.lock"
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
