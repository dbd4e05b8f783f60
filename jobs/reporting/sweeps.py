"""The callback around a sweep: a warning before its first job, a summary after its last."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from jobs.machine.launchers import accounting_warning
from jobs.paths import LOG
from jobs.printing import print_line
from jobs.records.status_file import ENDED, JobStatus, report_death, status_files

# What `faulthandler` writes into the log of a job when a signal ends its process.
_FAULT = re.compile(rb"^Fatal Python error: ([^\n]+)", re.MULTILINE)
_SIGNALS = {
    b"Segmentation fault": "SIGSEGV",
    b"Bus error": "SIGBUS",
    b"Illegal instruction": "SIGILL",
    b"Floating-point exception": "SIGFPE",
    b"Aborted": "SIGABRT",
}
# Where the sweep of this process writes, and when it began.
_sweep: tuple[Path, float] | None = None


def report_crashes() -> str:
    """Write into the status of each job of a sweep that a signal has ended that it failed.

    The processes of launchers have no parent of ours, which would tell how they ended.

    Returns:
        Sentences that name these jobs; empty if there are none.
    """
    sentences = []
    for path in [] if _sweep is None else status_files(_sweep[0]):
        log = path.with_name(LOG)
        if JobStatus.read(path).state not in ENDED and (name := _signal_in(log)):
            sentences.append(f"{path.parent.name} was ended by {name}; the stack is in {log}")
            report_death(path, f"the process was ended by {name}; the stack is in {log}")
    return ". ".join(sentences)


def _signal_in(log: Path) -> str:
    """Return the signal whose stack ends a log of this sweep; empty without one."""
    try:
        if _sweep is None or log.stat().st_mtime < _sweep[1]:
            return ""
        found = _FAULT.findall(log.read_bytes())
    except OSError:
        return ""
    return _SIGNALS.get(found[-1], "a signal") if found else ""


class SweepCallback(Callback):
    """What Hydra calls before and after the jobs of a sweep, in the process that started it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the sweep, and warn if SLURM has no accounting."""
        global _sweep
        _sweep = Path(config.runs), time.time()
        launcher = str(OmegaConf.select(config, "hydra.launcher._target_", default=""))
        if warning := accounting_warning(launcher):
            print_line(f"warning: {warning}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the state of all jobs; Hydra does not call this if a job failed."""
        # Loads rich, which invalid options must not wait for.
        from jobs.reporting.status_table import print_statuses

        print_statuses(Path(config.runs))
