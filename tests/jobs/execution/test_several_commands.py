"""Of identical commands one computes; the others name it, and leave its files alone."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.execution.job_log import logging_to
from jobs.job import Job
from jobs.reporting.terminal import Display
from outputs import claimed_directory, open_result
from tests.support.processes import ending, forked, wait_for

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2
COMMANDS = 8
SLOW = """
import os, time
import torch

def f(x):
    time.sleep(float(os.environ["SECONDS"]))
    return x.sin() * x.sum()

def point(): return torch.linspace(0.5, 1.5, 60, dtype=torch.float64)
"""
OPTIONS = (
    *("op=jacobian", "strategy=forward-loop", "chunk_size=2", "function=python"),
    *("function.target=slow:f", "function.point=slow:point", "verify.differences=false"),
)
SMALL = ("op=hessian", "strategy=vectorize", "function=rosenbrock", "function.n=12")
Resolve = Callable[..., Job]


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow", raising=False)
    monkeypatch.setenv("SECONDS", "0.01")
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


def status(directory: Path) -> dict[str, object]:
    (path,) = directory.glob("runs/*/status.json")
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("options", [(), ("sparsity=auto",), ("overwrite=true",)])
def test_one_of_several_identical_commands_computes(
    options: tuple[str, ...], slow: Path, resolved: Resolve, quiet: Display
) -> None:
    given, asking = os.pipe()

    def command() -> None:
        os.close(asking)
        os.read(given, 1)  # until all are ready
        job = resolved(*OPTIONS, *options)
        execute(job, quiet, overwrite="overwrite=true" in options, log=logging_to)

    commands = [forked(command) for _ in range(COMMANDS)]
    os.close(asking)
    codes = [ending(each) for each in commands]
    os.close(given)
    assert 0 in codes
    assert set(codes) <= {0, 1}, codes
    for errors in slow.glob("errors-*"):
        assert "this job is being computed by " in errors.read_text()
    assert len(list(slow.glob("errors-*"))) == codes.count(1)
    now = status(slow)
    assert now["state"] == "finished"
    assert now["message"] == ""
    (path,) = slow.glob("runs/*/result.h5")
    with open_result(path) as result:
        x = result.points["x"]
        exact = np.diag(np.cos(x) * x.sum()) + np.sin(x)[:, None]
        np.testing.assert_allclose(result[:], exact, rtol=1e-12)
    assert {each.name for each in path.parent.iterdir()} == {"result.h5", "status.json", "job.log"}
    # The others have not written into the log either.
    assert "being computed" not in (path.parent / "job.log").read_text()


def test_a_second_command_names_the_first_and_takes_over_when_it_is_killed(
    slow: Path, resolved: Resolve, quiet: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDS", "0.3")
    first = forked(lambda: execute(resolved(*OPTIONS), quiet))
    try:
        wait_for(lambda: bool(list(slow.glob("runs/*/*.part"))))
        before = status(slow)
        monkeypatch.setenv("SECONDS", "0")
        named = f"being computed by process {before['pid']} on {before['host']}"
        with pytest.raises(JobError, match=named):
            execute(resolved(*OPTIONS), quiet)
        assert status(slow)["pid"] == before["pid"] == first
    finally:
        os.kill(first, signal.SIGKILL)
        ending(first)
    assert execute(resolved(*OPTIONS), quiet).name == "result.h5"


def test_a_command_that_waited_for_nothing_shows_what_another_finished(
    resolved: Resolve, quiet: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result appears after the first look and before the lock."""
    job = resolved(*SMALL)
    looks: list[Path | None] = []

    def finished(job: Job) -> Path | None:
        if not looks:
            looks.append(None)
            monkeypatch.setattr("jobs.execution.execute.finished_result", real)
            execute(job, quiet)
            monkeypatch.setattr("jobs.execution.execute.finished_result", finished)
            return None
        return real(job)

    from jobs.execution.dense import finished_result as real

    monkeypatch.setattr("jobs.execution.execute.finished_result", finished)
    path = execute(job, quiet)
    monkeypatch.undo()
    inode = path.stat().st_ino
    assert execute(job, quiet).stat().st_ino == inode


def test_a_directory_that_is_held_by_an_unknown_process_is_refused(
    resolved: Resolve, quiet: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.execution.run_lock._SECONDS_UNTIL_A_STATUS", 0.2)
    job = resolved(*SMALL)
    job.paths.directory.mkdir(parents=True)
    with (
        claimed_directory(job.paths.directory),
        pytest.raises(JobError, match="being computed by another process, in "),
    ):
        execute(job, quiet)
    assert list(job.paths.directory.iterdir()) == []


def _without_override() -> None:
    """Let root, too, be refused what the permissions of files refuse."""
    library = ctypes.CDLL(None)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_a_finished_run_is_shown_where_nothing_can_be_written(
    tmp_path: Path, resolved: Resolve, quiet: Display
) -> None:
    command = [sys.executable, "-m", "jobs.run", *SMALL, "runs=runs"]
    execute(resolved(*SMALL), quiet)
    paths = [tmp_path / "runs", *(tmp_path / "runs").rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in paths}
    try:
        again = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            preexec_fn=_without_override,
        )
    finally:
        for path in paths:
            path.chmod(0o755)
    assert again.returncode == 0, again.stderr
    assert "this job is finished already" in again.stdout
    assert "denied" not in again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in paths} == before
