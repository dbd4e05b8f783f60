"""The command line: ``python -m jobs.run`` and ``autodiff-jobs``.

torch is imported when a job begins, not before: help and invalid options are answered at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from jobs.machine import early_interruption

# isort: split
import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from jobs.configuration.checks import check_config
from jobs.configuration.colons import colons_in_texts
from jobs.configuration.hydra_errors import as_hydra_reads, check_arguments
from jobs.configuration.registry import register
from jobs.configuration.sweep_mode import mode_by_the_arguments
from jobs.errors import EXIT_FAILED, ConfigurationError, JobError
from jobs.failure_messages import death_message, failure_message
from jobs.machine.activity import Death, announce
from jobs.machine.interruption import leaving_at_once
from jobs.machine.launchers import end_workers, ending_with_the_sweep, queueing_again_unharmed
from jobs.machine.loading import loading_modules
from jobs.machine.standard_streams import outlive_the_terminal
from jobs.machine.supervision import supervised
from jobs.paths import config_directory
from jobs.printing import print_line
from jobs.records.status_file import report_death
from jobs.version import own_version


def run_job(composed: DictConfig) -> None:
    """Run one job of a composed configuration.

    Raises:
        JobError: The job cannot start or continue.
    """
    announce(None)
    config = check_config(composed)
    with loading_modules():
        from jobs.execution.execute import execute
        from jobs.execution.job_log import logging_to
        from jobs.job import resolve
        from jobs.machine.devices import holding_devices
        from jobs.reporting.display import display_for

    display = display_for(config.progress)
    hydra_options = HydraConfig.get()
    if hydra_options.job.chdir:
        os.chdir(hydra_options.runtime.cwd)
        display.say(
            "note: hydra.job.chdir=true has no effect: all relative paths, those in your function "
            f"too, begin in {hydra_options.runtime.cwd}"
        )
    if config.plan:
        execute(resolve(config), display, plan_only=True)
        return
    with (
        queueing_again_unharmed(),
        leaving_at_once(),
        ending_with_the_sweep(),
        holding_devices(config.devices, config.dtype, display.say) as devices,
    ):
        job = resolve(config, devices)
        execute(job, display, overwrite=config.overwrite, log=logging_to)


def main() -> None:
    """Run the program; end the process with 0, or with another code after at most one message."""
    arguments = sys.argv[1:]
    if "--version" in arguments:
        print(f"autodiff-jobs {own_version()}")
        return
    if {"--help", "-h"} & set(arguments):
        print(_help_text())
        return
    # A short form for programs that read the output; Hydra refuses flags that it does not know.
    arguments = ["progress=json" if each == "--json" else each for each in arguments]
    sys.argv[1:] = [as_hydra_reads(each) for each in arguments]
    try:
        check_arguments(sys.argv[1:])
    except ConfigurationError as error:
        _emit_failure(str(error))
        print_line(f"error: {error}")
        sys.exit(EXIT_FAILED)
    # Hydra then raises instead of printing, and the message is ours. A user who asks for Hydra's
    # full errors gets the traceback.
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    printed: list[str] = []
    try:
        _run_by_hydra(printed)
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_message(error)
        if wants_traceback and failure[1] == EXIT_FAILED:
            raise
        sys.exit(_report(error, *failure, printed))


def _run_by_hydra(printed: list[str]) -> None:
    """Compose the options and run the job, or the jobs of a sweep.

    Args:
        printed: Receives the messages about jobs of a sweep that this process has printed.

    Raises:
        JobError: A job failed. Hydra raises errors of its own, of many types.
    """
    failed: list[Exception] = []

    def task(composed: DictConfig) -> None:
        try:
            run_job(composed)
        except Exception as error:
            if isinstance(error, JobError):
                _emit_failure(str(error))
            # Hydra would add a line to the message of a single job. In a sweep the launcher must
            # see the failure, and the message belongs next to the output of its job.
            if HydraConfig.get().mode == RunMode.RUN:
                failed.append(error)
                return
            if isinstance(error, JobError):
                print_line(f"error: {error}")
                printed.append(f"error: {error}")
            raise

    register()
    directory = str(config_directory())
    application = hydra.main(version_base="1.3", config_path=directory, config_name="config")(task)
    is_sweep = bool({"--multirun", "-m"} & set(sys.argv[1:]))
    try:
        # The end of a sweep by SIGTERM ends its workers.
        with ExitStack() as stack:
            if is_sweep:
                stack.enter_context(leaving_at_once())
            stack.enter_context(mode_by_the_arguments())
            stack.enter_context(colons_in_texts())
            application()
    finally:
        end_workers()
    if failed:
        raise failed[0]


def _report(error: BaseException, text: str, exit_code: int, printed: list[str]) -> int:
    """Print a failure that is not yet printed; return the exit code."""
    if isinstance(error, BrokenPipeError):
        # No process reads standard output, and the interpreter must not flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif text not in printed:
        # The failure of a job was emitted where the job ran.
        if not isinstance(error, JobError | KeyboardInterrupt):
            _emit_failure(text.removeprefix("error: "))
        print_line(text)
    return exit_code


def _emit_failure(message: str) -> None:
    """Print a failure as a line of JSON, if the options ask for JSON."""
    if {"progress=json", "--json"} & set(sys.argv[1:]):
        print(json.dumps({"event": "failed", "time": time.time(), "message": message}), flush=True)


def _help_text() -> str:
    """Return the text that Hydra would print after seconds: it lists all groups first."""
    configuration = OmegaConf.load(config_directory() / "config.yaml")
    return OmegaConf.select(configuration, "hydra.help.template").rstrip()


def program() -> None:
    """Run the program under a process that survives what ends it."""

    def interruptible() -> None:
        early_interruption.raise_again()
        main()

    outlive_the_terminal()
    supervised(interruptible, _report_death)


def _report_death(death: Death) -> None:
    """Print how a signal ended the job, and tell its watchers."""
    message = death_message(death)
    if death.activity is not None:
        report_death(Path(death.activity.job), message)
    _emit_failure(message)
    print(f"error: {message}", file=sys.stderr)


if __name__ == "__main__":
    program()
