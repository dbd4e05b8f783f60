"""Where a result comes from: versions, machine, commit, time."""

from __future__ import annotations

import platform
import socket
import subprocess
from datetime import UTC, datetime

import h5py
import numpy
import torch

from jobs.fingerprint import source_digest
from jobs.job import Job
from jobs.version import own_version


def provenance(job: Job) -> dict[str, str | int | float | bool]:
    """The facts that a result file keeps about its origin."""
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
        "function_source_sha256": source_digest(job.function),
    }
    commit = git_commit(job)
    if commit:
        facts["git_commit"] = commit
    return facts


def device_name(device: torch.device) -> str:
    """A device with the name of its hardware."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def git_commit(job: Job) -> str:
    """The commit of the checkout that holds the function, with "+" for changed files; or ""."""
    if not job.function.files:
        return ""
    folder = job.function.files[0].parent
    try:
        # One call for both: starting git takes longer than its answer.
        done = subprocess.run(
            ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = done.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "")
    if not commit.isalnum():  # "(initial)" before the first one
        return ""
    return commit + ("+" if any(not line.startswith("#") for line in lines) else "")
