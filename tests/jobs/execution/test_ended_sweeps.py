"""A sweep that is ended takes its workers with it, and the same sweep finishes what is missing."""

import json
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jobs.records.status_file import JobStatus
from outputs import verify_result
from tests.support.processes import start_job, wait_for

pytest.importorskip("hydra_plugins.hydra_joblib_launcher")

SLOW = """
import ctypes, os, time
import torch

def f(x):
    time.sleep(float(os.environ["SECONDS"]))
    if os.environ.get("CRASH") and torch.initial_seed() == 1:
        ctypes.string_at(0)
    return x.sin() * x.sum()

def point(): return torch.linspace(0.5, 1.5, 150, dtype=torch.float64)
"""
OPTIONS = (
    *("--multirun", "cluster=joblib", "op=jacobian", "strategy=forward-loop", "chunk_size=2"),
    *("function=python", "function.target=slow:f", "function.point=slow:point", "seed=0,1"),
)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.Popen[str]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text(SLOW)
    return partial(start_job, *OPTIONS)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_the_workers_end_with_the_sweep(
    number: signal.Signals, code: int, sweep: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = sweep(SECONDS="0.3")
    wait_for(lambda: len(list(tmp_path.glob("runs/*/*.part"))) == 2, process)
    files = list(tmp_path.glob("runs/*/status.json"))
    workers = [int(json.loads(file.read_bytes())["pid"]) for file in files]
    assert process.pid not in workers
    assert all(map(is_alive, workers))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    wait_for(lambda: not any(map(is_alive, workers)))
    assert len(list(tmp_path.glob("runs/*/*.part"))) == 2


def test_a_crash_names_its_job_and_the_same_sweep_finishes_what_is_missing(
    sweep: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    crashed = sweep(SECONDS="0", CRASH="1")
    _, errors = crashed.communicate(timeout=100)
    assert crashed.returncode == 1
    assert "Traceback" not in errors
    found = [JobStatus.read(path) for path in tmp_path.glob("runs/*/status.json")]
    (failed,) = (each for each in found if each.state == "failed")
    assert f"error: {failed.directory.name} was ended by SIGSEGV; the stack is in " in errors
    assert failed.message.startswith("the process was ended by SIGSEGV")
    again = sweep(SECONDS="0")
    output, errors = again.communicate(timeout=100)
    assert again.returncode == 0, output + errors
    results = list(tmp_path.glob("runs/*/result.h5"))
    assert len(results) == 2
    assert all(verify_result(path).ok for path in results)
    # Nothing lies beside them.
    for path in results:
        names = {each.name for each in path.parent.iterdir()}
        assert names == {"result.h5", "status.json", "job.log"}
