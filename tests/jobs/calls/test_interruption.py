"""Calls that are stopped, killed and repeated, in processes of their own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jobs
from outputs import Result
from tests.jobs.support.slow_function import SLOW
from tests.support.processes import committed, wait_for
from tests.support.warm_interpreter import WarmPopen

# Each row takes time: a stopped job has rows to do.
CALL = f"""
import sys, time
import torch
import jobs

{SLOW}

def function(x):
    return Slow.apply(x)


def call(**options):
    options = {{"strategy": "reverse-loop", "chunk_size": 1, "verify": "off", **options}}
    return jobs.compute("jacobian", function, torch.arange(40.0), **options)
"""
SCRIPT = f"""SECONDS = 0.1
{CALL}
try:
    print(call(progress="quiet").path, flush=True)
except KeyboardInterrupt as error:
    print("stopped:", error, flush=True)
    print("still usable:", float(torch.ones(2).sum()), flush=True)
"""


def start(directory: Path) -> subprocess.Popen[str]:
    (directory / "slow.py").write_text(SCRIPT)
    return WarmPopen(
        [sys.executable, "slow.py"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def running(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that computes and has written some rows."""
    process = start(directory)
    wait_for(lambda: committed(directory) > 3, process)
    yield process
    process.kill()
    process.communicate()


def completed(resumed: int) -> None:
    """Make the same call in this process; check the numbers and that enough rows were resumed."""
    names: dict[str, Any] = {"SECONDS": 0.1, "__name__": "__main__"}
    exec(compile(CALL, "<cell>", "exec"), names)
    with names["call"](progress="quiet") as result:
        np.testing.assert_array_equal(result[...], np.diag(2.0 * np.arange(40)))
        assert result.execution["lines_resumed"] > resumed


def test_ctrl_c_ends_the_call_after_a_block(
    running: subprocess.Popen[str], directory: Path
) -> None:
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=100)
    assert running.returncode == 0, err
    assert "stopped: interrupted; what was computed is kept, and the same call resumes" in out
    assert "still usable: 2.0" in out
    assert 3 < committed(directory) < 40
    # There is nothing to wait for.
    with pytest.raises(jobs.JobError, match=r"is interrupted \(the same call continues"):
        jobs.find("runs")[0].result(timeout=1)
    completed(3)


def test_sigterm_ends_the_process_after_a_block(
    running: subprocess.Popen[str], directory: Path
) -> None:
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=100)
    assert running.returncode == -signal.SIGTERM
    assert committed(directory) > 3


def test_a_second_process_is_refused_and_resumes_after_a_kill(
    running: subprocess.Popen[str], directory: Path
) -> None:
    with pytest.raises(jobs.JobError, match=f"process {running.pid} on {socket.gethostname()}"):
        completed(0)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    completed(3)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_call_in_a_child_process(method: str, directory: Path) -> None:
    context: Any = torch.multiprocessing.get_context(method)
    found = context.Queue()
    child = context.Process(target=_in_child, args=(found, str(directory)))
    child.start()
    assert found.get(timeout=200) == pytest.approx(4.0)
    child.join()


def _in_child(found: "torch.multiprocessing.Queue[float]", directory: str) -> None:
    os.chdir(directory)
    with jobs.compute("hessian", _square, torch.ones(2), progress="quiet") as result:
        assert isinstance(result, Result)
        found.put(float(result[0, 0] + result[1, 1]))


def _square(x: torch.Tensor) -> torch.Tensor:
    return (x**2).sum()
