"""Kill the real command at random instants, again and again, until its result is complete.

The suite kills a few times; ``make torture`` sets AUTODIFF_JOBS_KILLS for the full number.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from outputs import open_result

KILLS = int(os.environ.get("AUTODIFF_JOBS_KILLS", "10"))
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
    "products": [
        "op=hvp",
        "function=rosenbrock",
        "function.n=300",
        "strategy=vectorize",
        "vectors.count=300",
        "chunk_size=2",
    ],
}


def start(options: list[str], directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
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


def wait_for_part(process: subprocess.Popen[str], directory: Path) -> None:
    """Until the file exists, a kill hits nothing but imports."""
    while process.poll() is None and not list(directory.glob("runs/*/*.part")):
        time.sleep(0.005)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_survives_being_killed_at_any_instant(name: str, tmp_path: Path) -> None:
    options, kills = JOBS[name], max(1, KILLS // len(JOBS))
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    reference = start(options, undisturbed)
    wait_for_part(reference, undisturbed)
    began = time.monotonic()
    finish(reference)
    seconds = time.monotonic() - began
    randomness = random.Random(name)
    for _ in range(kills):
        process = start(options, killed)
        wait_for_part(process, killed)
        # Late moments are rarer, so that several kills fit into one result.
        time.sleep(seconds * randomness.random() ** 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if list(killed.glob("runs/*/result.h5")):
            compare(undisturbed, killed)
            only_result(killed).unlink()
    if not list(killed.glob("runs/*/result.h5")):
        finish(start(options, killed))
    compare(undisturbed, killed)


def compare(undisturbed: Path, killed: Path) -> None:
    with open_result(only_result(undisturbed)) as expected, open_result(only_result(killed)) as got:
        assert got.complete
        np.testing.assert_array_equal(got[...], expected[...])
