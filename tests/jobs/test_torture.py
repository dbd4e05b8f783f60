"""Kill processes of the real command at random instants, repeatedly, until its result is complete.

These are the process that the user started, the one that computes, and those of single devices.

The suite kills some of the jobs a few times; ``make torture`` sets AUTODIFF_JOBS_KILLS for the full
number, and all of them.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jobs.records.status_file import JobStatus
from outputs import open_result
from tests.support.processes import committed
from tests.support.warm_interpreter import WarmPopen

KILLS = int(os.environ.get("AUTODIFF_JOBS_KILLS", "6"))
MANY = 50
SECONDS_OF_A_RUN = 180.0
BRUSSELATOR = ["op=jacobian", "function=brusselator", "function.n=12"]
JOBS = {
    "rows": [*BRUSSELATOR, "strategy=vectorize", "chunk_size=2"],
    "columns in tiles": [*BRUSSELATOR, "strategy=forward-mode", "chunk_size=3"],
    "compressed columns": [
        *BRUSSELATOR,
        "strategy=forward-mode",
        "chunk_size=4",
        "output.compression=gzip",
    ],
    "rows one by one": [
        "op=hessian",
        "function=rosenbrock",
        "function.n=150",
        "strategy=reverse-loop",
        "chunk_size=1",
    ],
    "two processes": [*BRUSSELATOR, "strategy=vectorize", "chunk_size=2", "devices=cpu:2"],
    "products": [
        "op=hvp",
        "function=rosenbrock",
        "function.n=300",
        "strategy=vectorize",
        "vectors.count=300",
        "chunk_size=2",
    ],
}


KILLED = list(JOBS) if KILLS >= MANY else ["rows", "compressed columns", "rows one by one"]


def start(options: list[str], directory: Path) -> subprocess.Popen[str]:
    return WarmPopen(
        [sys.executable, "-m", "jobs.run", *options],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    output, errors = process.communicate(timeout=SECONDS_OF_A_RUN)
    assert process.returncode == 0, output + errors


def only_result(directory: Path) -> Path:
    (result,) = directory.glob("runs/*/result.h5")
    return result


def tree(pid: int) -> list[int]:
    """Return a process and those below it."""
    found = [pid]
    # Processes end while they are listed.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [each for child in file.read_text().split() for each in tree(int(child))]
    return found


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_until_at_work(process: subprocess.Popen[str], directory: Path, started: float) -> None:
    """Wait until this process has opened its result: earlier kills hit only imports and probes."""
    while process.poll() is None:
        for path in directory.glob("runs/*/status.json"):
            is_new = path.stat().st_mtime >= started
            if is_new and JobStatus.read(path).state in ("running", "finished"):
                return
        time.sleep(0.002)


@pytest.mark.parametrize("name", KILLED)
def test_a_job_survives_being_killed_at_any_instant(name: str, tmp_path: Path) -> None:
    options, kills = JOBS[name], max(1, KILLS // len(KILLED))
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    began = time.time()
    reference = start(options, undisturbed)
    wait_until_at_work(reference, undisturbed, began)
    opened = time.time()
    finish(reference)
    opening, working = opened - began, time.time() - opened
    randomness = random.Random(name)
    progress = [0]
    for number in range(kills):
        began = time.time()
        process = start(options, killed)
        if number % 5 == 4:  # at any instant, during the imports as well
            time.sleep((opening + working) * randomness.random())
        else:
            wait_until_at_work(process, killed, began)
            # Late instants are less frequent, so that several kills fit into one result.
            time.sleep(working * randomness.random() ** 2)
        kill(randomness.choice(tree(process.pid)))
        process.communicate()
        if list(killed.glob("runs/*/result.h5")):
            compare(undisturbed, killed)
            only_result(killed).unlink()
            progress.append(0)
        else:
            # No committed block is ever lost.
            progress.append(committed(killed))
            assert progress[-1] >= progress[-2]
    print(
        f"{name}: {kills} kills, {progress.count(0) - 1} found nothing begun or a finished result"
    )
    # The test is only meaningful if many kills hit the computation itself.
    assert kills < 10 or max(progress) > 0
    if not list(killed.glob("runs/*/result.h5")):
        finish(start(options, killed))
    compare(undisturbed, killed)


def compare(undisturbed: Path, killed: Path) -> None:
    with open_result(only_result(undisturbed)) as expected, open_result(only_result(killed)) as got:
        assert got.complete
        np.testing.assert_array_equal(got[...], expected[...])
