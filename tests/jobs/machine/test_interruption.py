"""Signals under a launcher with signal handlers of its own."""

import signal
import subprocess
from pathlib import Path

import pytest

from jobs.machine.launchers import queueing_again_unharmed

submitit = pytest.importorskip("submitit")
from submitit.core import utils  # noqa: E402
from submitit.slurm.slurm import SlurmJobEnvironment  # noqa: E402

# The signals that submitit handles.
HANDLED = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)

# SLURM ends a request that comes from within the job together with the job.
SCONTROL = """#!/bin/sh
kill -TERM $$
echo "$@" > {asked}
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install submitit's handlers in this process; return the file that records its requests."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(SCONTROL.format(asked=tmp_path / "asked"))
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    before = {number: signal.getsignal(number) for number in HANDLED}
    job = utils.DelayedSubmission(print)
    job.set_timeout(timeout_min=60, max_num_timeout=3)
    SlurmJobEnvironment()._handle_signals(utils.JobPaths(tmp_path, "7"), job)
    try:
        yield tmp_path / "asked"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_request_to_queue_a_job_again_outlives_the_end_of_the_job(asked):
    with pytest.raises(SystemExit), queueing_again_unharmed():
        signal.raise_signal(signal.SIGUSR2)
    assert asked.read_text() == "requeue 7\n"
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_without_that_the_request_dies(asked):
    """Fails if submitit, or Python, comes to protect the request itself."""
    with pytest.raises(subprocess.CalledProcessError, match="SIGTERM"):
        signal.raise_signal(signal.SIGUSR2)


def test_the_handlers_of_the_launcher_are_put_back(asked):
    before = [signal.getsignal(number) for number in HANDLED]
    with queueing_again_unharmed():
        assert signal.getsignal(signal.SIGUSR2) != before[-1]
        assert signal.getsignal(signal.SIGTERM) == before[0]
    assert [signal.getsignal(number) for number in HANDLED] == before
