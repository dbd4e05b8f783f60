"""What is known about the launchers of sweeps: submitit (SLURM) and joblib."""

from __future__ import annotations

import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeGuard

from jobs.machine.interruption import SIGNALS
from jobs.machine.signal_handlers import SignalHandler, installed


def is_of_launcher(error: BaseException) -> bool:
    """Whether an exception comes from submitit, which raises its own inside a running job.

    Its signal handler ends a job that is to be queued again by ``SystemExit``, and one that may
    not by an error. Whoever takes these for failures of the job keeps it from being queued.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return any("submitit" in Path(frame.filename).parts for frame in frames)


@contextmanager
def queueing_again_unharmed() -> Iterator[None]:
    """While the body runs, SIGTERM does not reach what submitit starts to queue the job again.

    submitit answers its signal by ``scontrol requeue`` inside the job, and SLURM begins by sending
    SIGTERM to all processes of the job, the request among them. Where that dies before it has its
    answer, submitit takes the job, which is queued, for one that failed.
    """
    with installed(
        {
            number: _without_sigterm(handler)
            for number in signal.valid_signals()
            if _is_of_submitit(handler := signal.getsignal(number)) and number not in SIGNALS
        }
    ):
        yield


def _is_of_submitit(handler: object) -> TypeGuard[SignalHandler]:
    return getattr(handler, "__module__", "").split(".")[0] == "submitit"


def _without_sigterm(
    handler: SignalHandler,
) -> SignalHandler:
    def handle(number: int, frame: FrameType | None) -> None:
        # A process inherits what is blocked in the thread that starts it, but not handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            handler(number, frame)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return handle


_SECONDS_FOR_AN_ANSWER = 10


def end_workers() -> None:
    """End the processes that joblib keeps waiting for more to do.

    They hold the output of the program open, and this process may leave without telling them.
    """
    loky = sys.modules.get("joblib.externals.loky")
    if loky is not None:
        loky.get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def accounting_problem() -> str:
    """Why ``sacct`` tells nothing about jobs, or nothing if it does."""
    try:
        done = subprocess.run(
            ["sacct", "--noheader", "--allocations", "--jobs", "1"],
            capture_output=True,
            text=True,
            timeout=_SECONDS_FOR_AN_ANSWER,
        )
    except FileNotFoundError:
        return "there is no sacct here"
    except subprocess.TimeoutExpired:
        return f"sacct does not answer within {_SECONDS_FOR_AN_ANSWER} s"
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gives no reason"])[0]
        return f"sacct does not answer ({reason})"
    return ""
