"""A process above the one that computes: it survives when the system kills for want of memory.

The system's out-of-memory killer takes the largest process. That is the one that computes; the
one above it holds next to nothing, sees the death, and starts the same command once more, which
goes on where it stopped, with half the chunk size.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

KILLED_PROCESS = "AUTODIFF_JOBS_KILLED_PROCESS"
"""Environment variable: the number of the process that the system killed before this one."""

MOST_RESTARTS = 32
_FORWARDED = (signal.SIGINT, signal.SIGTERM)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def supervised(program: Callable[[], None]) -> None:
    """Run a program in a process of its own, again where the system killed it for want of memory.

    On systems without Linux's figures of such kills the program simply runs.

    Args:
        program: Runs until it returns or raises SystemExit; imports what is large itself.

    Raises:
        SystemExit: With the exit code of the program.
    """
    if out_of_memory_kills() is None:
        program()
        return
    for _ in range(MOST_RESTARTS):
        before = out_of_memory_kills()
        process = _start(program)
        code = _wait(process)
        if code != -signal.SIGKILL or out_of_memory_kills() == before:
            break
        print(
            "the system killed the job because no memory was free; it goes on with less at a time",
            file=sys.stderr,
            flush=True,
        )
        os.environ[KILLED_PROCESS] = str(process)
    if code < 0:
        # As shells report it; the signal itself would tell the same of a process without us.
        sys.exit(128 - code)
    sys.exit(code)


def out_of_memory_kills() -> int | None:
    """How many processes the system has killed for want of memory; None where it does not say."""
    try:
        figures = Path("/proc/vmstat").read_text()
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)", figures, re.M)
    return int(found[1]) if found else None


def _start(program: Callable[[], None]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    process = os.fork()
    if process:
        return process
    # A group of its own: what the terminal sends arrives once, from the process above.
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    code = 1
    try:
        program()
        code = 0
    except SystemExit as exit:
        code = _exit_code(exit)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        _flush()
        os._exit(code)


def _exit_code(exit: SystemExit) -> int:
    if exit.code is None:
        return 0
    if isinstance(exit.code, int):
        return exit.code
    print(exit.code, file=sys.stderr)
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue


def _wait(process: int) -> int:
    """Wait for a process and hand signals on to it; gives its code, negative for a signal."""

    def forward(number: int, frame: FrameType | None) -> None:
        os.kill(process, number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        _, status = os.waitpid(process, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return os.waitstatus_to_exitcode(status)
