"""`jobs.submit`: a job of objects that the program holds, computed by tasks of a cluster."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch

from jobs.calls.compute import computed, failures
from jobs.calls.options import WholeOptions, configured
from jobs.calls.process import undisturbed
from jobs.calls.runs import Run
from jobs.calls.submitted import Submission
from jobs.configuration.composition import launcher_settings
from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError, JobError, unknown
from jobs.execution.execute import show_finished
from jobs.execution.workers.live_configs import unpacked_config
from jobs.functions.live.transport import Packed
from jobs.functions.tracebacks import one_line
from jobs.job import resolve
from jobs.machine.arithmetic import Arithmetic
from jobs.machine.launchers import accounting_problem, queueing_again_unharmed
from jobs.reporting.display import SilentDisplay, display_for
from jobs.reporting.terminal import Display

CLUSTERS = ("slurm", "local", "debug")
# Options of submitit that have the same name on every cluster.
_SHARED = {
    *("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node"),
    *("tasks_per_node", "stderr_to_stdout"),
}


def submit(
    op: str,
    function: Any,
    point: Any = None,
    *,
    cluster: str = "slurm",
    shards: int | None = None,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Unpack[WholeOptions],
) -> Run:
    """Let tasks of a cluster compute a job; the arguments are those of `jobs.compute`.

    The job is checked here, before anything is submitted.

    Args:
        op: The operation.
        function: The function.
        point: Where it is differentiated.
        cluster: ``slurm``; ``local`` for processes of this machine that outlive this one; ``debug``
            computes in this process before it returns.
        shards: The number of tasks that divide the matrix; None lets one task compute it.
        name: The name of the job.
        settings: Settings of the tasks, those of ``hydra.launcher``: ``partition``,
            ``timeout_min``, ``gpus_per_node``. The defaults for SLURM are in
            ``conf/cluster/slurm.yaml``.
        **options: The options of the command line.

    Returns:
        The run, which waits, tells its status and opens the result. `jobs.find` returns it again
        after a restart.

    Raises:
        ConfigurationError: An argument is not valid, or the function cannot be sent.
        JobError: The cluster does not accept the job.
    """
    if cluster not in CLUSTERS:
        raise unknown("cluster", cluster, CLUSTERS)
    first: dict[str, Any] = {} if shards is None else {"shard": f"0/{shards}"}
    display = display_for(str(options.get("progress", "auto")), quiet=SilentDisplay)
    with failures(), undisturbed(display.say):
        config = configured(op, function, point, name, {**options, **first})
        if config.overwrite:
            raise ConfigurationError(
                "overwrite=true: jobs.submit replaces no finished result; remove the directory of "
                "its run, or choose another place with runs="
            )
        packed = Packed(config, f"cluster={cluster}: the function")
        # The nodes of a cluster have other devices, on which no fingerprint depends.
        job = resolve(config, (torch.device("cpu"),))
        run = job.paths.run
        if job.paths.whole.exists() and show_finished(job, display):
            return Run(run)
        if _is_submitted(run, cluster, shards, display):
            return Run(run)
        run.mkdir(parents=True, exist_ok=True)
        folder = _written(packed, run)
    tasks = [
        ClusterTask(
            str(folder),
            shard,
            job.fingerprint,
            tuple(map(os.path.abspath, sys.path)),
            Arithmetic.of_this_process(),
        )
        for shard in ([None] if shards is None else [f"{n}/{shards}" for n in range(shards)])
    ]
    submitted = Submission.now()
    if cluster == "debug":
        for each in tasks:
            each()
        ids = ["" for _ in tasks]
    else:
        if cluster == "slurm" and (problem := accounting_problem()):
            display.warn(f"warning: {problem}; .wait() would not notice that a task was killed")
        try:
            ids = _submitted(tasks, cluster, folder, dict(settings or {}))
        except JobError:
            shutil.rmtree(folder)
            with suppress(OSError):  # there is something of an earlier call
                run.rmdir()
                run.parent.rmdir()
            raise
    Submission(cluster, folder.name, tuple(ids), shards, submitted, run).write()
    return Run(run)


def _is_submitted(run: Path, cluster: str, shards: int | None, display: Display) -> bool:
    """Return whether tasks of an earlier call compute the job; remove the parcel of ended ones.

    Raises:
        JobError: They divide the matrix in another way, or compute elsewhere.
    """
    earlier = Submission.read(run)
    if earlier is None:
        return False
    if Run(run).has_ended:
        shutil.rmtree(run / earlier.folder, ignore_errors=True)
        return False
    what = f"jobs {', '.join(earlier.jobs)} of cluster={earlier.cluster}"
    if (earlier.cluster, earlier.shards) != (cluster, shards):
        raise JobError(
            f"{run} is computed already by {what} with shards={earlier.shards}; wait for them, or "
            "cancel them first"
        )
    display.say(f"note: this job was submitted before, and {what} compute it")
    return True


def _written(packed: Packed, run: Path) -> Path:
    """Write a job where its tasks find it."""
    folder = run / f"submission-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    (folder / "job.pkl").write_bytes(pickle.dumps(packed.parcel))
    descriptor = os.open(folder / "tensors.bin", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        packed.write(descriptor)
    finally:
        os.close(descriptor)
    return folder


@dataclass(frozen=True)
class ClusterTask:
    """What a task of a cluster runs; submitit pickles it.

    Attributes:
        folder: Where the job is.
        shard: The shard that it computes; None computes the whole matrix.
        fingerprint: The fingerprint that the job had when it was submitted.
        search_path: Where the program that submitted it found its modules.
        arithmetic: The settings of torch in that program.
    """

    folder: str
    shard: str | None
    fingerprint: str
    search_path: tuple[str, ...]
    arithmetic: Arithmetic

    def __call__(self) -> str:
        """Compute the result, and return its path."""
        folder = Path(self.folder)
        display = display_for("lines")
        with queueing_again_unharmed(), failures(), undisturbed(display.say):
            self.arithmetic.restore()
            sys.path += [each for each in self.search_path if each not in sys.path]
            parcel = pickle.loads((folder / "job.pkl").read_bytes())
            descriptor = os.open(folder / "tensors.bin", os.O_RDONLY)
            config: JobConfig = unpacked_config(parcel, descriptor)
            config.shard = self.shard
            return str(computed(config, display, self.fingerprint)[1])

    def checkpoint(self) -> Any:
        """Return the task again: it resumes when its time is over or its node is taken away."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _submitted(
    tasks: list[ClusterTask], cluster: str, folder: Path, settings: dict[str, Any]
) -> list[str]:
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError as error:
        raise ConfigurationError(
            f"cluster={cluster}: submitit is not installed; it comes with pip install "
            "'autodiff-jobs[slurm]'"
        ) from error
    known = launcher_settings(cluster) if cluster == "slurm" else {}
    chosen = {**known, "name": folder.parent.name[:80], **settings}
    timeouts = {f"{cluster}_max_num_timeout": chosen.pop("max_num_timeout", 1000)}
    named = {k if k in _SHARED else f"{cluster}_{k}": v for k, v in chosen.items()}
    try:
        executor = submitit.AutoExecutor(
            folder, cluster=cluster, **(timeouts if cluster == "slurm" else {})
        )
        executor.update_parameters(**named)
        with executor.batch():
            jobs = [executor.submit(each) for each in tasks]
    except (NameError, TypeError, AssertionError) as error:
        raise ConfigurationError(f"settings={settings}: {one_line(error)}") from error
    # What the programs of SLURM answer, or that they are missing.
    except (RuntimeError, OSError, FailedJobError) as error:
        raise JobError(f"cluster={cluster}: {one_line(error)}") from error
    return [job.job_id for job in jobs]
