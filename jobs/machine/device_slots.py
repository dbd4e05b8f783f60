"""A slot for each device, which one job of this machine holds at a time.

A slot is a file under the kernel's lock (flock(2)): it is free again at the moment when its holder
ends, in whatever way. Job numbers modulo the number of devices would collide as soon as jobs take
different times.
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
        tell: Is told, as a sentence, that slots are waited for.
        directory: Where the files are; None takes one of this user's own.
    """

    def __init__(self, tell: Callable[[str], None], directory: Path | None = None) -> None:
        self._tell = tell
        self._directory = directory or Path(tempfile.gettempdir()) / f"autodiff-jobs-{os.getuid()}"

    @contextmanager
    def one_of(self, names: Sequence[str]) -> Iterator[str]:
        """Hold the slot of any one device, the first that is or becomes free.

        Args:
            names: The devices, by names that last, such as the numbers of their hardware.

        Yields:
            The one that is held.
        """
        is_told = False
        while True:
            for name in names:
                with self._attempt(name) as is_held:
                    if is_held:
                        yield name
                        return
            if not is_told:
                self._tell(f"waiting for one of {len(names)} devices, which other jobs hold")
                is_told = True
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)

    @contextmanager
    def all_of(self, names: Sequence[str], *, wait: bool) -> Iterator[None]:
        """Hold the slots of several devices.

        Args:
            names: The devices.
            wait: Whether to wait for those that other jobs hold; else they are shared.
        """
        with ExitStack() as held:
            # In one order, so that no two jobs wait for one another.
            for name in sorted(names):
                if wait:
                    held.enter_context(self.one_of([name]))
                elif not held.enter_context(self._attempt(name)):
                    self._tell("another job holds a device of this one, which both share")
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
