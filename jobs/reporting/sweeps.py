"""Around a sweep: a warning before its first job, a summary after its last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from jobs.statuses import STATUS

_SECONDS_FOR_AN_ANSWER = 10
_SLURM = "SlurmLauncher"


class SweepCallback(Callback):
    """What Hydra calls before and after the jobs of a sweep, where it was started."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Warn of a SLURM without accounting."""
        target = str(OmegaConf.select(config, "hydra.launcher._target_", default=""))
        if target.endswith(_SLURM) and (problem := accounting_problem()):
            print(
                f"warning: {problem}; this command will not notice when a job is killed, and wait "
                "for it for ever. Ctrl-C ends the waiting, the jobs go on",
                file=sys.stderr,
            )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show how all jobs stand; Hydra leaves this out where one has failed."""
        from jobs.status import main

        if any(Path(config.runs).rglob(STATUS)):
            main([config.runs, "--once"])


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
