"""Run a program in a child process, and restart it if the system kills it for lack of memory.

The system's out-of-memory killer chooses the largest process: the child, which computes. The parent
holds almost no memory. It detects the kill and starts the same program again, which resumes with
at most half the chunk size.
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

_MOST_RESTARTS = 32
_FORWARDED = (signal.SIGINT, signal.SIGTERM)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def supervised(program: Callable[[], None]) -> None:
    """Run a program in a child process, and again each time the system kills it for lack of memory.

    On systems that do not count such kills, as Linux does, the program runs in this process.

    Args:
        program: Runs until it returns or raises SystemExit; it imports large modules itself.

    Raises:
        SystemExit: The program has ended; the exit code is that of the program.
    """
    if out_of_memory_kills() is None:
        program()
        return
    for _ in range(_MOST_RESTARTS):
        before = out_of_memory_kills()
        process = _start(program)
        code = _wait(process)
        if code != -signal.SIGKILL or out_of_memory_kills() == before:
            break
        print(
            "the system killed the job because no memory was free; it resumes with smaller chunks",
            file=sys.stderr,
            flush=True,
        )
        os.environ[KILLED_PROCESS] = str(process)
    if code < 0:
        # As shells report a process that a signal ended.
        sys.exit(128 - code)
    sys.exit(code)


def out_of_memory_kills() -> int | None:
    """Return how many processes the system has killed for lack of memory; None if unknown."""
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
    # In a process group of its own the child gets signals of the terminal once, from its parent.
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
    """Wait for a process and forward signals to it; return its exit code, negative for a signal."""

    def forward(number: int, frame: FrameType | None) -> None:
        os.kill(process, number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        _, status = os.waitpid(process, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return os.waitstatus_to_exitcode(status)
