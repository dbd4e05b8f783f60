"""Several devices: their names, their slots, and worker processes that live, die and leave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.configuration.device_names import parse_devices
from jobs.errors import ConfigurationError, JobError
from jobs.machine.device_slots import DeviceSlots
from jobs.machine.devices import choose_devices
from outputs import open_result, verify_result
from tests.support.processes import committed, start_job, wait_for

# Each evaluation of the function in a worker leaves a line; files tell the function what to do.
OWN = """
import multiprocessing, os, pathlib, signal, time
import torch

SLOW = float(os.environ.get("SECONDS", "0"))

def is_worker():
    return multiprocessing.parent_process() is not None

def point():
    return torch.linspace(0.5, 1.5, 24, dtype=torch.float64)

def slow(x):
    time.sleep(SLOW if is_worker() else 0)
    return torch.outer(x, x).reshape(-1)

def deadly(x):
    # By forward-loop one evaluation is one column; the first to find a bomb takes it along.
    for bomb in sorted(pathlib.Path().glob("bomb*")) if is_worker() and seen() else ():
        try:
            bomb.unlink()
        except FileNotFoundError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    return slow(x)

def seen(count=[0]):
    # Opening takes evaluations as well; what is meant are blocks.
    count[0] += 1
    return count[0] > 8

def hungry(x):
    if is_worker() and seen() and pathlib.Path("full").exists():
        pathlib.Path("full").unlink()
        raise torch.OutOfMemoryError("no more on this device")
    return slow(x)

def lost(x):
    if is_worker() and seen() and pathlib.Path("gone").exists():
        pathlib.Path("gone").unlink(missing_ok=True)
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")
    return slow(x)

def failing(x):
    if is_worker() and seen():
        raise ValueError("as it was asked to")
    return slow(x)
"""
TWO = ("op=jacobian", "strategy=forward-loop", "devices=cpu:2", "chunk_size=2")


@pytest.fixture
def own(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, ...]]:
    (directory / "own.py").write_text(OWN)
    monkeypatch.setenv("SECONDS", "0.02")

    def options(name: str, *more: str) -> tuple[str, ...]:
        target = ("function=python", f"function.target=./own.py:{name}")
        return (*target, "function.point=./own.py:point", *TWO, *more)

    return options


def expected() -> np.ndarray:
    x = np.linspace(0.5, 1.5, 24)
    identity = np.eye(24)
    jacobian = identity[:, None] * x[None, :, None] + x[:, None, None] * identity[None]
    return jacobian.reshape(-1, 24)


def notes(result: Any) -> str:
    return "\n".join(result.execution["fallbacks"])


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("auto", ("auto",)),
        ("cpu", ("cpu",)),
        ("cpu:3", ("cpu", "cpu", "cpu")),
        ("cuda", ("cuda",)),
        ("cuda:1", ("cuda:1",)),
        (["cuda:0", "cuda:2"], ("cuda:0", "cuda:2")),
        (["cpu"], ("cpu",)),
        ("mps", ("mps",)),
        ("xpu:3", ("xpu:3",)),
        (["software:1", "software:0"], ("software:1", "software:0")),
    ],
)
def test_devices_are_named(value: str | list[str], names: tuple[str, ...]) -> None:
    assert parse_devices(value) == names


@pytest.mark.parametrize(
    "value",
    [
        *("", "cpu:0", "cuda:", "cpu:-1", "auto:1", "Cuda", "cuda:0,cuda:1", "cuda:x", " "),
        *([], ["cpu", "cuda:0"], ["cuda:0", "cuda:0"], ["cuda:0", "xpu:1"], ["cuda", "cuda:0"]),
        *(["cpu:2", "cpu:3"], [""], ["auto", "cpu"]),
    ],
)
def test_what_names_no_devices_is_refused(value: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"devices=.*; valid here are auto, cpu, cpu:4"):
        parse_devices(value)


@pytest.mark.parametrize("value", ["gpu", "software", "software:0", ["software:0", "software:1"]])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(value: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="there is no such device here; valid here are"):
        choose_devices(value, "float64")


@pytest.mark.parametrize(
    "options",
    [
        ("op=jacobian", "strategy=vectorize", "function=brusselator", "function.n=8"),
        ("op=hessian", "strategy=reverse-loop", "function=pairwise_energy", "function.n=12"),
        ("op=vjp", "strategy=vectorize", "function=mlp", "function.n=12", "vectors.count=20"),
        ("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=9", "verify=sample"),
    ],
    ids=lambda options: " ".join(options),
)
def test_results_do_not_depend_on_workers(
    run_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    # Sums are split among threads, whose number would show in the last bit.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = run_job(*options, "devices=cpu", "chunk_size=5", "runs=alone")
        shared = run_job(*options, "devices=cpu:2", "chunk_size=5", "runs=shared")
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(shared[:], alone[:])
    assert verify_result(shared.path).ok
    workers = shared.execution["workers"]
    assert len(workers) == 2
    assert sum(each["lines"] for each in workers) == shared.execution["lines_computed"]
    assert alone.execution["workers"] == []


def test_many_points_are_shared(
    run_job: Callable[..., Any], own: Callable[..., tuple[str, ...]]
) -> None:
    points = np.random.default_rng(0).standard_normal((9, 3))
    np.save("points.npy", points)
    more = ["points=leading", "inputs=numpy", "inputs.path=points.npy", "chunk_size=10"]
    options = [each for each in own("slow", *more) if "point=" not in each]
    result = run_job(*options, "strategy=vectorize")
    identity = np.eye(3)
    outer = identity[:, None] * points[:, None, :, None] + points[:, :, None, None] * identity
    assert np.allclose(result[:], outer.reshape(9, 9, 3))


def test_a_worker_that_dies_is_reported_and_its_chunks_are_computed(
    run_job: Callable[..., Any], own: Callable[..., tuple[str, ...]]
) -> None:
    Path("bomb").touch()
    result = run_job(*own("deadly"))
    assert np.allclose(result[:], expected(), rtol=1e-14)
    assert re.search(
        r"the worker on cpu \(\d+ threads\) was killed \(SIGKILL\); columns \d+ to \d+ go to "
        r"another; 1 left",
        notes(result),
    )
    assert sum("lost" in each for each in result.execution["workers"]) == 1


def test_the_job_continues_later_when_no_worker_is_left(
    run_job: Callable[..., Any], own: Callable[..., tuple[str, ...]], directory: Path
) -> None:
    Path("bomb1").touch()
    Path("bomb2").touch()
    with pytest.raises(JobError, match=r"no worker is left|have ended two workers"):
        run_job(*own("deadly"))
    result = run_job(*own("deadly"))
    assert np.allclose(result[:], expected(), rtol=1e-14)


def test_a_chunk_that_ends_two_workers_ends_the_job(
    run_job: Callable[..., Any], own: Callable[..., tuple[str, ...]]
) -> None:
    Path("bomb1").touch()
    Path("bomb2").touch()
    with pytest.raises(JobError, match=r"have ended two workers \(the last was killed"):
        # A single chunk, and a worker more than it may end.
        run_job(*own("deadly", "chunk_size=24", "devices=cpu:3"))


def test_memory_that_runs_out_in_a_worker_halves_the_chunks(
    run_job: Callable[..., Any], own: Callable[..., tuple[str, ...]]
) -> None:
    Path("full").touch()
    result = run_job(*own("hungry", "chunk_size=4"))
    assert np.allclose(result[:], expected(), rtol=1e-14)
    assert result.execution["chunk_sizes"] == [4, 2]
    assert "continuing with 2 at a time" in notes(result)


def test_a_lost_device_ends_its_worker_alone(
    run_job: Callable[..., Any], own: Callable[..., tuple[str, ...]]
) -> None:
    Path("gone").touch()
    result = run_job(*own("lost"))
    assert np.allclose(result[:], expected(), rtol=1e-14)
    assert "unspecified launch failure" in notes(result)


def test_a_function_that_fails_in_a_worker_is_reported_as_ever(
    command_line: Callable[..., Any], own: Callable[..., tuple[str, ...]]
) -> None:
    finished = command_line(*own("failing"))
    assert finished.code == 1
    assert "ValueError: as it was asked to" in finished.err
    assert "own.py" in finished.err
    assert "Traceback" not in finished.err


def descendants(process: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process and fields[0] != "Z":
            child = int(stat.parent.name)
            found |= {child, *descendants(child)}
    return found


@pytest.mark.parametrize(
    # SIGTERM takes the way of SIGINT; what tells them apart is tested with one process.
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGKILL, -9)],
)
def test_a_stopped_job_leaves_no_worker_and_continues(
    own: Callable[..., tuple[str, ...]],
    directory: Path,
    command_line: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    monkeypatch.setenv("SECONDS", "0.1")
    job = start_job(*own("slow"))
    wait_for(lambda: committed(directory) >= 2, job)
    family = descendants(job.pid)
    job.send_signal(number)
    job.communicate(timeout=60)
    assert job.returncode == code
    wait_for(lambda: not any(Path(f"/proc/{each}").exists() for each in family))
    before = committed(directory)
    # Each worker finished the block that it was computing, and no more.
    assert 2 <= before < 24
    monkeypatch.setenv("SECONDS", "0")
    again = command_line(*own("slow"))
    assert again.code == 0, again.err
    with open_result(again.result) as result:
        assert result.execution["lines_resumed"] == before
        assert np.allclose(result[:], expected(), rtol=1e-14)


HOLD = """
import sys, time
from pathlib import Path
from jobs.machine.device_slots import DeviceSlots
from jobs.machine.devices import choose_devices
with DeviceSlots(print, Path(sys.argv[1])).one_of(["a", "b"]) as name:
    print(name, flush=True)
    time.sleep(100)
"""


def test_slots_are_held_by_one_job_each_and_free_when_it_is_killed(tmp_path: Path) -> None:
    told: list[str] = []
    slots = DeviceSlots(told.append, tmp_path)
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    names = [holder.stdout.readline().strip() for holder in holders if holder.stdout]
    assert sorted(names) == ["a", "b"]
    with slots.all_of(["b"], wait=False):
        assert told == ["another job uses a device of this job; they share it"]
    holders[0].kill()
    holders[0].wait()
    with slots.one_of(["a", "b"]) as free:
        assert free == names[0]
    assert len(told) == 1
    # Now all are held, until the other one is killed too.
    with slots.one_of(["a", "b"]):
        os.kill(holders[1].pid, signal.SIGKILL)
        with slots.one_of(["a", "b"]) as other:
            assert other == names[1]
    for holder in holders:
        holder.communicate()
