"""The callback around a sweep: a warning before its first job, a summary after its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from jobs.machine.launchers import accounting_warning
from jobs.printing import print_line


class SweepCallback(Callback):
    """What Hydra calls before and after the jobs of a sweep, in the process that started it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Warn if SLURM has no accounting."""
        launcher = str(OmegaConf.select(config, "hydra.launcher._target_", default=""))
        if warning := accounting_warning(launcher):
            print_line(f"warning: {warning}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the state of all jobs; Hydra does not call this if a job failed."""
        # Loads rich, which invalid options must not wait for.
        from jobs.reporting.status_table import print_statuses

        print_statuses(Path(config.runs))
