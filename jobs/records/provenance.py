"""The origin of a result: versions, machine, commit, time."""

from __future__ import annotations

import platform
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy
import torch

from jobs.configuration.schema import AtomsSource
from jobs.functions.ragged import RaggedFunction
from jobs.job import Job
from jobs.machine.accelerator import device_name
from jobs.sources.atoms import UNITS
from jobs.version import own_version

_SECONDS_FOR_GIT = 10


def provenance(job: Job, commit: str) -> dict[str, str | int | float | bool]:
    """Collect the facts about its origin that a result file stores.

    Args:
        job: The job.
        commit: The commit of the function, from `git_commit`; empty if there is none.
    """
    facts: dict[str, str | int | float | bool] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "autodiff_jobs": own_version(),
        "device": device_name(job.device),
        "dtype": str(job.dtype).removeprefix("torch."),
        "seed": job.seed,
        "function_reference": job.function.reference,
        "function_source_sha256": job.source.digest,
    }
    if isinstance(config := job.config.inputs, AtomsSource):
        names = {name: config.names.get(name, name) for name in inputs_of(job)}
        facts |= {f"unit_{n}": UNITS[what] for n, what in names.items() if what in UNITS}
    if commit:
        facts["git_commit"] = commit
    return facts


def inputs_of(job: Job) -> tuple[str, ...]:
    """Return the names of the inputs that are differentiated."""
    function = job.function.function
    return function.points[0].names if isinstance(function, RaggedFunction) else tuple(job.point)


@contextmanager
def git_commit(job: Job) -> Iterator[Callable[[], str]]:
    """Ask git for the commit of a function while the body runs, because git may take seconds.

    Args:
        job: The job.

    Yields:
        A function that waits for the answer: the commit of the checkout that contains the function,
        with a "+" if files in it are changed; empty if there is no commit.
    """
    process = _git_status(job.function.files[0].parent) if job.function.files else None
    try:
        yield lambda: "" if process is None else _commit(process)
    finally:
        if process is not None:
            process.kill()
            process.communicate()


def _git_status(folder: Path) -> subprocess.Popen[str] | None:
    # One call returns commit and changes: starting git takes longer than its work.
    # Without locks: killed, it would leave one in the user's repository.
    command = ["git", "--no-optional-locks", "-C", str(folder), "status"]
    command += ["--porcelain=v2", "--branch"]
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
        )
    except OSError:
        return None


def _commit(process: subprocess.Popen[str]) -> str:
    try:
        answer, _ = process.communicate(timeout=_SECONDS_FOR_GIT)
    except (OSError, subprocess.SubprocessError):
        return ""
    if process.returncode:
        return ""
    lines = answer.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "")
    if not commit.isalnum():  # "(initial)" before the first one
        return ""
    return commit + ("+" if any(not line.startswith("#") for line in lines) else "")
