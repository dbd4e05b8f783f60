"""`jobs.compute` and `jobs.plan`: a job of objects that the program holds."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import current_process
from pathlib import Path
from typing import Any, Unpack

from jobs.calls.opening import opened
from jobs.calls.options import Options, configured
from jobs.calls.process import undisturbed
from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError, JobError, resource_failure
from jobs.execution.execute import execute
from jobs.execution.job_log import logging_to
from jobs.execution.workers.live_configs import is_live, packed_config
from jobs.job import Job, resolve
from jobs.machine.devices import choose_devices, holding_devices
from jobs.planning.plan import Plan
from jobs.reporting.console import WIDTH_WITHOUT_TERMINAL, SafeConsole
from jobs.reporting.display import SilentDisplay, display_for
from jobs.reporting.terminal import Display
from outputs import (
    BeingWrittenError,
    Result,
    SparseResult,
    claimed_directory,
    part_path,
)


def compute(
    op: str,
    function: Any,
    point: Any = None,
    *,
    name: str | None = None,
    **options: Unpack[Options],
) -> Result | SparseResult:
    """Compute a derivative matrix as the command ``python -m jobs.run`` does, and open its file.

    The job runs in this process and thread. The same call again resumes an unfinished job, and
    opens the file of a finished one. Ctrl-C ends the job after the block that it computes.

    Args:
        op: ``jacobian``, ``hessian``, ``ggn``, ``fisher``, ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        function: A function of tensors or a torch.nn.Module, which is taken as it is, its training
            mode included. Also the name of a built-in problem, an import path such as
            ``./energy.py:energy``, or a dictionary of the options ``function``.
        point: Where it is differentiated: a tensor or an array, or several in a tuple or list in
            the order of the arguments, or in a dictionary by their names. None leaves it to the
            option `inputs`.
        name: The name of the job. It also stands for what cannot be hashed of the function.
        **options: The options of the command line by the same names, those of a group in a
            dictionary: ``strategy="vectorize"``, ``wrt="params"``, ``memory="8GiB"``,
            ``output={"dtype": "float32"}``.

    Returns:
        The result, open for reading.

    Raises:
        ConfigurationError: An argument is not valid; nothing was written.
        JobError: The job cannot start or continue; what was computed is kept. Or its result is
            contradicted, or not verified with ``verify="require"``; the file is kept.
        KeyboardInterrupt: The user has stopped the job; what was computed is kept.
    """
    display = display_for(str(options.get("progress", "auto")), quiet=SilentDisplay)
    with failures(), undisturbed(display.say):
        config = configured(op, function, point, name, options)
        job, path = computed(config, display)
    return opened(path, is_shard=job.shard is not None)


@dataclass(frozen=True, repr=False)
class PlannedJob:
    """What a job would do; its text is what the command line prints with ``plan=true``.

    Attributes:
        text: The plan in words.
        plan: The plan; None if the job is finished.
        directory: The directory of the run.
        fingerprint: The fingerprint of the job.
        is_finished: Whether its result exists.
    """

    text: str
    plan: Plan | None
    directory: Path
    fingerprint: str

    @property
    def is_finished(self) -> bool:
        """Whether the result of the job exists."""
        return self.plan is None

    def __repr__(self) -> str:
        return self.text


def plan(
    op: str,
    function: Any,
    point: Any = None,
    *,
    name: str | None = None,
    **options: Unpack[Options],
) -> PlannedJob:
    """Plan a job without running it; the arguments and errors are those of `compute`.

    Returns:
        The plan, which prints itself.
    """
    kept = _KeptPlan()
    with failures(), undisturbed(kept.say):
        config = configured(op, function, point, name, options)
        job = resolve(config, choose_devices(config.devices, config.dtype))
        execute(job, kept, overwrite=config.overwrite, plan_only=True)
    return PlannedJob(kept.text, kept.kept, job.paths.directory, job.fingerprint)


class _KeptPlan(Display):
    """Keeps a plan, and the text of what is shown."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        # In a notebook rich would show the plan at once and write nothing to the text.
        console = SafeConsole(
            file=self._text, highlight=False, width=WIDTH_WITHOUT_TERMINAL, force_jupyter=False
        )
        super().__init__(console, bar=False)
        self.kept: Plan | None = None

    def plan(self, plan: Plan) -> None:
        """Keep a plan."""
        self.kept = plan
        super().plan(plan)

    @property
    def text(self) -> str:
        """What was shown."""
        return "\n".join(line.rstrip() for line in self._text.getvalue().splitlines())


def computed(config: JobConfig, display: Display, expected: str = "") -> tuple[Job, Path]:
    """Run a job by the same steps as the command line; return it and the path of its result.

    Args:
        config: The options.
        display: Shows plan, progress and outcome.
        expected: The fingerprint that the job of a task must have; empty in the process of the
            caller, who has the error: a failure before the first block leaves nothing there.

    Raises:
        JobError: The job cannot start or continue.
    """
    _require_no_plan(config)
    with holding_devices(config.devices, config.dtype, display.say) as devices:
        if len(devices) > 1 and current_process().daemon:
            raise ConfigurationError(
                f"devices={config.devices}: this process is a daemon of multiprocessing, which may "
                "start no others; valid is one device"
            )
        if len(devices) > 1 and is_live(config):
            packed_config(config)
        job = resolve(config, devices)
        if expected not in ("", job.fingerprint):
            raise JobError(
                "the function, a module of the project or an installed package changed since the "
                "job was submitted; submit it again"
            )
        log = partial(logging_to, owns_process=False)
        with nullcontext() if expected else _nothing_left_of_a_failure(job):
            return job, execute(job, display, overwrite=config.overwrite, log=log)


def _require_no_plan(config: JobConfig) -> None:
    if config.plan:
        raise ConfigurationError("plan=true: jobs.plan with the same arguments returns the plan")


@contextmanager
def failures() -> Iterator[None]:
    """Turn what the command line reports in one line into a `JobError` with that line."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise JobError(resource_failure(error)) from error


@contextmanager
def _nothing_left_of_a_failure(job: Job) -> Iterator[None]:
    """Remove what a failure before the first block leaves: the caller has the error itself."""
    directory = job.paths.directory
    made = [each for each in (directory, *directory.parents) if not each.exists()]
    try:
        yield
    except BaseException:
        results = (job.paths.result, job.paths.replacement)
        kept = [each for path in results for each in (path, part_path(path))]
        has_products = any(directory.glob("products-by-*"))
        if directory in made and not has_products and not any(each.exists() for each in kept):
            with suppress(OSError, BeingWrittenError):
                with claimed_directory(directory):
                    shutil.rmtree(directory)
                for each in made[1:]:
                    each.rmdir()
        raise
