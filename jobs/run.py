"""The command line: ``python -m jobs.run`` and ``autodiff-jobs``.

torch is imported when a job begins, not before: help and mistakes answer at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jobs.configuration.checks import check_config
from jobs.configuration.hydra_errors import check_arguments, explain, refused_option
from jobs.configuration.registry import register
from jobs.errors import ConfigurationError, JobError
from jobs.machine.launchers import end_workers, is_of_launcher
from jobs.machine.supervision import supervised
from jobs.paths import config_directory
from jobs.version import own_version

if TYPE_CHECKING:
    from jobs.job import Job

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def run_job(composed: DictConfig) -> None:
    """Run one job of a composed configuration.

    Raises:
        JobError: The job cannot start or go on.
    """
    config = check_config(composed)
    from jobs.execution.execute import execute
    from jobs.job import resolve
    from jobs.machine.devices import choose_devices, holding_devices
    from jobs.machine.interruption import leaving_at_once
    from jobs.machine.launchers import queueing_again_unharmed
    from jobs.reporting.display import display_for

    display = display_for(config.progress)
    if config.plan:
        execute(resolve(config, choose_devices(config.devices)), display, plan_only=True)
        return
    with (
        queueing_again_unharmed(),
        leaving_at_once(),
        holding_devices(config.devices, display.say) as devices,
    ):
        job = resolve(config, devices)
        with _log_file(job):
            execute(job, display, overwrite=config.overwrite)


def main() -> None:
    """Run the program; ends the process with 0, or with 1 after one message on standard error."""
    if "--version" in sys.argv[1:]:
        print(f"autodiff-jobs {own_version()}")
        return
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_help_text())
        return
    # Short for what programs that read a plan want; Hydra refuses flags that it does not know.
    sys.argv[1:] = ["progress=json" if each == "--json" else each for each in sys.argv[1:]]
    try:
        check_arguments(sys.argv[1:])
    except ConfigurationError as error:
        sys.exit(f"error: {_tell_programs(str(error))}")
    register()
    # Hydra then raises instead of printing, and the message is ours. A user who asks for Hydra's
    # full errors gets the traceback.
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    failures: list[JobError] = []
    told: list[str] = []

    def task(composed: DictConfig) -> None:
        try:
            run_job(composed)
        except JobError as error:
            _tell_programs(str(error))
            # A single job is told by its message alone. In a sweep the launcher must see the
            # failure, and the message belongs beside the job that it is about.
            if HydraConfig.get().mode == RunMode.RUN:
                failures.append(error)
                return
            print(f"error: {error}", file=sys.stderr)
            told.append(str(error))
            raise

    application = hydra.main(
        version_base="1.3", config_path=str(config_directory()), config_name="config"
    )(task)
    try:
        try:
            application()
        finally:
            end_workers()
    except JobError as error:
        if wants_traceback:
            raise
        # A job of another process told it there.
        if str(error) not in told:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        sys.exit(f"error: {_tell_programs(explain(error))}")
    except BrokenPipeError:
        # Nobody reads any more; the interpreter must not try to flush into the pipe either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    # The directory of the results is made by Hydra, before the job begins.
    except OSError as error:
        if wants_traceback:
            raise
        told_so = f"{error.filename or 'input or output'}: {error.strerror or error}"
        sys.exit(f"error: {_tell_programs(told_so)}")
    except Exception as error:
        # What Hydra stumbles over, or a launcher says of a job that ended without an answer.
        option = refused_option(error)
        if wants_traceback or not (option or is_of_launcher(error)):
            raise
        sys.exit(f"error: {_tell_programs(option or _about_lost_job(error))}")
    except KeyboardInterrupt as interruption:
        print(
            "interrupted; what was computed is kept, and the same command goes on from there",
            file=sys.stderr,
        )
        sys.exit(getattr(interruption, "exit_code", EXIT_INTERRUPTED))
    if failures:
        if wants_traceback:
            raise failures[0]
        sys.exit(f"error: {failures[0]}")


def _tell_programs(message: str) -> str:
    """Print a failure as a line of JSON where these are asked for; gives the message back."""
    if "progress=json" in sys.argv[1:]:
        print(json.dumps({"event": "failed", "time": time.time(), "message": message}), flush=True)
    return message


def _help_text() -> str:
    """The text that Hydra would print, which lists all groups first, for seconds."""
    configuration = OmegaConf.load(config_directory() / "config.yaml")
    return OmegaConf.select(configuration, "hydra.help.template").rstrip()


def _about_lost_job(error: Exception) -> str:
    # Which job, and what became of it.
    first, *second = str(error).strip().splitlines()[:2]
    return (
        f"{' '.join([first, *second])}; jobs of the sweep that are queued go on, and the same "
        "command runs again what is missing or failed"
    )


class _log_file:  # noqa: N801 - a context manager that reads as a function
    """Keep what the job logs, with tracebacks, in its directory."""

    def __init__(self, job: Job) -> None:
        self._path = job.paths.log

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self._path)
        form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._handler.setFormatter(form)
        logger = logging.getLogger("jobs")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self._handler)

    def __exit__(self, *exception: object) -> None:
        logging.getLogger("jobs").removeHandler(self._handler)
        self._handler.close()


def program() -> None:
    """Run the program under a process that survives the system's out-of-memory killer."""
    supervised(main)


if __name__ == "__main__":
    program()
