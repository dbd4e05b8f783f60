"""A sweep that is ended takes its workers with it, and the same sweep finishes what is missing."""

import json
import signal
from pathlib import Path

import pytest

from outputs import verify_result
from tests.support.processes import start_job, wait_for

pytest.importorskip("hydra_plugins.hydra_joblib_launcher")

SLOW = """
import os, time
import torch

def f(x, n=1.0):
    time.sleep(float(os.environ["SECONDS"]))
    return x.sin() * x.sum() * n

def point(n=1.0): return torch.linspace(0.5, 1.5, 150, dtype=torch.float64)
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_the_workers_end_with_the_sweep(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text(SLOW)
    sweep = start_job(*OPTIONS, SECONDS="0.3")
    wait_for(lambda: len(list(tmp_path.glob("runs/*/*.part"))) == 2, sweep)
    files = list(tmp_path.glob("runs/*/status.json"))
    workers = [int(json.loads(file.read_bytes())["pid"]) for file in files]
    assert sweep.pid not in workers
    assert all(map(is_alive, workers))
    sweep.send_signal(number)
    sweep.communicate(timeout=60)
    assert sweep.returncode == code
    wait_for(lambda: not any(map(is_alive, workers)))
    assert len(list(tmp_path.glob("runs/*/*.part"))) == 2
    again = start_job(*OPTIONS, SECONDS="0")
    output, errors = again.communicate(timeout=100)
    assert again.returncode == 0, output + errors
    results = list(tmp_path.glob("runs/*/result.h5"))
    assert len(results) == 2
    assert all(verify_result(path).ok for path in results)
