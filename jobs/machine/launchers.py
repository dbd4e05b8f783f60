"""What is known about the launchers of sweeps: submitit, which submits to SLURM, and joblib."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeGuard

from jobs.machine.interruption import SIGNALS
from jobs.machine.signal_handlers import SignalHandler, installed

PACKAGES = ("hydra-submitit-launcher", "hydra-joblib-launcher", "submitit")
# The extras of this package that install launchers; the launchers' names end with these.
_EXTRAS = ("slurm", "joblib")
_SLURM_LAUNCHER = "SlurmLauncher"
_SECONDS_FOR_AN_ANSWER = 10
_SECONDS_BETWEEN_LOOKS = 0.5
_WATCHER = "sweep-watcher"
_has_a_job = threading.Event()


def install_hint(error: BaseException) -> str:
    """Return the end of a message that tells how to install the launcher that Hydra misses.

    Args:
        error: What Hydra raised while it composed the options.

    Returns:
        The hint; empty if the error is about anything else.
    """
    # The option and its value, such as hydra/launcher/submitit_slurm.
    group, _, value = str(getattr(error, "missing_cfg_file", "")).rpartition("/")
    extra = next((name for name in _EXTRAS if value.endswith(name)), "")
    if group != "hydra/launcher" or not extra:
        return ""
    return f"; {value} comes with pip install 'autodiff-jobs[{extra}]'"


def is_of_launcher(error: BaseException) -> bool:
    """Check whether an exception comes from submitit, which raises its own inside a running job.

    Its signal handler ends a job that is to be queued again by ``SystemExit``, and one that may
    not by an error. Code that takes these for failures of the job keeps it from being queued.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return any("submitit" in Path(frame.filename).parts for frame in frames)


def lost_job(error: BaseException) -> str:
    """Return a message about a job of a sweep that ended without a result.

    Args:
        error: What a launcher raised.

    Returns:
        The message; empty if the error does not come from a launcher.
    """
    if type(error).__name__ == "TerminatedWorkerError":
        return (
            "a signal ended a process of joblib, perhaps for lack of memory; python -m jobs.status "
            "shows which job it computed, whose job.log has the stack of a fault. The same command "
            "runs again what is missing or failed"
        )
    if not is_of_launcher(error):
        return ""
    # The first two lines tell which job it was, and what became of it.
    what = " ".join(str(error).strip().splitlines()[:2])
    return (
        f"{what}; queued jobs of the sweep continue, and the same command runs again what is "
        "missing or failed"
    )


@contextmanager
def queueing_again_unharmed() -> Iterator[None]:
    """Keep SIGTERM from the request by which submitit queues the job again, while the body runs.

    submitit answers its signal by ``scontrol requeue`` inside the job, and SLURM begins by sending
    SIGTERM to all processes of the job, that request among them. If the request dies before it is
    answered, submitit takes the job, which is queued, for one that failed.
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


def _without_sigterm(handler: SignalHandler) -> SignalHandler:
    def handle(number: int, frame: FrameType | None) -> None:
        # A process inherits what is blocked in the thread that starts it, but not handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            handler(number, frame)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return handle


def end_workers() -> None:
    """End the processes that joblib keeps for further work.

    They hold the output of the program open, and this process may exit without notifying them.
    """
    loky = sys.modules.get("joblib.externals.loky")
    if loky is not None:
        loky.get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


@contextmanager
def ending_with_the_sweep() -> Iterator[None]:
    """Run a job; in a process of joblib, end it as by SIGTERM when the process of its sweep ends.

    Otherwise it would compute its job to the end, although the sweep was killed.
    """
    is_of_joblib = multiprocessing.current_process().name.startswith("LokyProcess")
    if is_of_joblib and all(each.name != _WATCHER for each in threading.enumerate()):
        parent = os.getppid()
        threading.Thread(target=_watch, args=(parent,), name=_WATCHER, daemon=True).start()
    _has_a_job.set()
    try:
        yield
    finally:
        _has_a_job.clear()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if _has_a_job.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
    while _has_a_job.is_set():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(128 + signal.SIGTERM)


def accounting_warning(launcher: str) -> str:
    """Return a warning that submitit cannot detect killed jobs; empty if it can.

    Args:
        launcher: The import path of the launcher's class.
    """
    if not launcher.endswith(_SLURM_LAUNCHER) or not (problem := accounting_problem()):
        return ""
    return (
        f"{problem}; this command cannot detect that a job was killed, and would wait for it "
        "forever. Ctrl-C ends the waiting, the jobs continue"
    )


def accounting_problem() -> str:
    """Return why ``sacct`` reports nothing about jobs; empty if it does report."""
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
