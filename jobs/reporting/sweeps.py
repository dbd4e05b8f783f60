"""Around a sweep: a warning before its first job, a summary after its last."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from jobs.machine.launchers import accounting_problem
from jobs.records.status_file import STATUS

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
