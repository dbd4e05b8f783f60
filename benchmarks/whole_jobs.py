"""Time the default job from call to finished file, and peers from call to file."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from contenders import Contender
from hydra import compose, initialize_config_dir
from speed_writing import bring_to_disk, plain_file, settle_disk
from workloads import Instance

from jobs.configuration.checks import check_config
from jobs.configuration.registry import register
from jobs.execution.execute import execute
from jobs.job import Job, resolve
from jobs.machine.accelerator import release_cache, synchronize
from jobs.reporting.display import display_for
from jobs.run import config_directory
from outputs import open_result

register()


def job_of(options: list[str]) -> Job:
    """Return the job that a command with these options runs."""
    with initialize_config_dir(version_base="1.3", config_dir=str(config_directory())):
        return resolve(check_config(compose("config", options)))


def default_job(instance: Instance) -> dict[str, Any]:
    """Plan, compute, verify and write a workload in this process, without any tuning.

    Args:
        instance: The workload.

    Returns:
        ``seconds`` in all, ``probing_seconds`` and ``computing_seconds`` of them, and the choices
        ``strategy``, ``engine`` and ``chunk_size`` (the last one, if the run tries larger ones).
    """
    workload = instance.workload
    options = [
        f"op={workload.operation}",
        *workload.job_options(instance.options),
        f"devices={instance.device}",
        "dtype=float32",
        *([f"vectors.count={workload.vectors}"] if workload.vectors else []),
    ]
    place = Path(tempfile.mkdtemp(prefix="autodiff-jobs-whole-"))
    try:
        job = job_of([*options, f"runs={place}"])
        settle_disk(instance)
        # Memory that torch caches on a device is not free for the job.
        release_cache()
        started = time.perf_counter()
        # A job prints the path of its result.
        with redirect_stdout(StringIO()):
            path = execute(job, display_for("quiet"))
        seconds = time.perf_counter() - started
        with open_result(path) as result:
            record, strategy = result.execution, result.strategy
    finally:
        shutil.rmtree(place)
    return {
        "seconds": seconds,
        "probing_seconds": record["plan"]["probing_seconds"],
        "computing_seconds": record["seconds"],
        "strategy": strategy,
        "engine": record["engine"],
        "chunk_size": record["chunk_size"],
    }


def whole_peer(contender: Contender, instance: Instance) -> dict[str, float]:
    """Run a peer's job; JAX's compilation is not timed.

    Returns:
        ``seconds`` from the call to the closed file, and ``durable_seconds`` until the file is on
        the disk as well, which is when our job ends.
    """
    wait_for(instance.device)
    settle_disk(instance)
    directory = Path(tempfile.mkdtemp(prefix="autodiff-jobs-whole-"))
    try:
        started = time.perf_counter()
        lines = contender.prepare()
        if contender.group == "JAX":
            lines(0, min(contender.chunk_size, contender.lines))
            started = time.perf_counter()
        with plain_file(directory, contender, instance) as (keep, _):
            for start in range(0, contender.lines, contender.chunk_size):
                stop = min(start + contender.chunk_size, contender.lines)
                keep(start, stop, lines(start, stop))
        seconds = time.perf_counter() - started
        bring_to_disk(directory)
        return {"seconds": seconds, "durable_seconds": time.perf_counter() - started}
    finally:
        shutil.rmtree(directory)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all work; a CPU already has."""
    synchronize(device)
