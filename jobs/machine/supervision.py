"""Run a program in a child process, and start it again where a signal ended it and that may help.

The system's out-of-memory killer chooses the largest process: the child, which computes. The parent
holds almost no memory. It detects the kill and starts the same program again, which resumes with
at most half the chunk size.

A fault in native code (SIGSEGV and its like) ends the child as well. Where the child had announced
something that the job can do without, such as one of several strategies, the program is started
again without that, at most once for each.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from jobs.machine.activity import Death, announce, deaths_of, last_activity, remember, share

FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
"""The signals by which the system ends a process for what it has done."""

_MOST_RESTARTS = 32
_FORWARDED = (signal.SIGINT, signal.SIGTERM)
_WAITED_FOR = {*_FORWARDED, signal.SIGCHLD}
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def supervised(program: Callable[[], None], report: Callable[[Death], None]) -> None:
    """Run a program in a child process, and again each time that a signal ended it and that helps.

    On systems that do not count kills for lack of memory, as Linux does, the program runs in this
    process.

    Args:
        program: Runs until it returns or raises SystemExit; it imports large modules itself.
        report: Called with the end of the child by a signal after which it is not started again.

    Raises:
        SystemExit: The program has ended; the exit code is that of the program.
    """
    if out_of_memory_kills() is None:
        program()
        return
    share()
    code = 1
    for start in range(_MOST_RESTARTS):
        announce(None)
        before = out_of_memory_kills()
        code = _run(program)
        death = _death(code, is_for_memory=out_of_memory_kills() != before)
        if death is None:
            break
        next_start = _next_start(death) if start + 1 < _MOST_RESTARTS else ""
        if not next_start:
            report(death)
            break
        print(f"{death.reason}; {next_start}", file=sys.stderr, flush=True)
        remember(death)
    if code < 0:
        # As shells report a process that a signal ended.
        sys.exit(128 - code)
    sys.exit(code)


def _death(code: int, *, is_for_memory: bool) -> Death | None:
    """Return how the child was ended, unless it ended by itself or the user ended it."""
    if -code not in {*FAULTS, signal.SIGKILL}:
        return None
    is_kill = -code == signal.SIGKILL
    return Death(last_activity(), signal.Signals(-code).name, is_for_memory and is_kill)


def _next_start(death: Death) -> str:
    """Return how the program starts again after a death, in words; empty if it does not."""
    activity = death.activity
    if activity is None:
        return ""
    if death.is_for_memory:
        is_divisible = activity.chunk_size is not None and activity.chunk_size > 1
        return "it resumes with smaller chunks" if is_divisible else ""
    known = [each.activity and each.activity.leaves_out for each in deaths_of(activity.job)]
    is_new = activity.leaves_out and activity.leaves_out not in known
    return "the job starts again without it" if is_new and death.signal != "SIGKILL" else ""


def out_of_memory_kills() -> int | None:
    """Return how many processes the system has killed for lack of memory; None if unknown."""
    try:
        figures = Path("/proc/vmstat").read_text()
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)", figures, re.M)
    return int(found[1]) if found else None


def _run(program: Callable[[], None]) -> int:
    """Run a program in a child process; return its exit code, negative for a signal."""
    # Signals wait until this process is ready for them, whatever happens to the child before.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    try:
        return _wait(_start(program, mask))
    finally:
        while signal.sigtimedwait(_WAITED_FOR, 0) is not None:
            continue
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(program: Callable[[], None], mask: Iterable[int]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    process = os.fork()
    if process:
        return process
    # The child stays in the process group, so that it may read from the terminal, and Ctrl-Z stops
    # and `fg` continues both.
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    code = 1
    try:
        program()
        code = 0
    except SystemExit as exit:
        code = _exit_code(exit)
    except KeyboardInterrupt:
        # Outside of what the program itself handles: before it begins, or while it ends.
        code = 128 + signal.SIGINT
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
    """Wait for a process and forward signals to it; return its exit code, negative for a signal.

    A terminal sends its signals to the whole process group. Those that the kernel sends are thus
    not forwarded, as in sudo(8); those of other processes are.
    """
    ended = 0
    status = 0
    while not ended:
        received = signal.sigwaitinfo(_WAITED_FOR)
        if received.si_signo in _FORWARDED and received.si_code <= 0:
            os.kill(process, received.si_signo)
        ended, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status)
