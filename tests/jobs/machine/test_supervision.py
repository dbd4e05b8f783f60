"""A process that a signal ends is started again without what it tried, at most once for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outputs import open_result, verify_result
from tests.support.warm_interpreter import WarmInterpreter

# What ends the process is seen by the levels of the argument, or by who evaluates the function.
DEADLY = """
import ctypes, os, signal, sys, time
import torch

def is_dual(x):
    return torch.autograd.forward_ad.unpack_dual(x).tangent is not None

def is_called_from(*names):
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name not in names:
        frame = frame.f_back
    return frame is not None

def smooth(x):
    return x.sin() * x.sum()

def in_forward_mode(x):
    if is_dual(x):
        ctypes.string_at(0)
    return smooth(x)

def in_a_late_block(x):
    # The first strategy that computes the second point in a block is the one that dies: the third
    # is measured, and the run has it.
    is_second = is_called_from("compute_block") and abs(float(x.detach()[0]) - 0.5 - 6 / 23) < 1e-9
    if is_second and not os.path.exists("died"):
        open("died", "w").close()
        # The blocks before are written by another thread.
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGFPE)
    return smooth(x)

def in_the_check(x):
    if is_called_from("_pushed") and is_dual(x):
        os.abort()
    return smooth(x)

def in_the_differences(x):
    if is_called_from("compare_with_differences"):
        os.kill(os.getpid(), signal.SIGBUS)
    return smooth(x)

def in_the_detection(x):
    if is_called_from("detect_sparsity"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return smooth(x)

def always(x):
    os.kill(os.getpid(), signal.SIGILL)

def killed(x):
    if is_called_from("compute_block"):
        os.kill(os.getpid(), signal.SIGKILL)
    return smooth(x)

def in_derivatives(x):
    if x.requires_grad and is_called_from("linearize"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return in_forward_mode(x)

def point():
    return torch.linspace(0.5, 1.5, 6, dtype=torch.float64)
"""


@pytest.fixture(scope="module")
def interpreter() -> WarmInterpreter:
    return WarmInterpreter()


@pytest.fixture
def run(interpreter: WarmInterpreter, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    (tmp_path / "deadly.py").write_text(DEADLY)

    def run(
        function: str, *options: str, point: str = "function.point=deadly:point"
    ) -> tuple[int, str]:
        target = ("function=python", f"function.target=deadly:{function}")
        words = ["-m", "jobs.run", "op=jacobian", *target, point, *options]
        return interpreter.run(words, tmp_path)

    return run


def expected(x: np.ndarray | None = None) -> np.ndarray:
    x = np.linspace(0.5, 1.5, 6) if x is None else x
    return np.diag(np.cos(x)) * x.sum() + np.sin(x)[:, None]


def only_record(directory: Path) -> dict[str, Any]:
    """Return the execution record of the only result, after a comparison with the truth."""
    (path,) = directory.glob("runs/*/result.h5")
    assert verify_result(path).ok
    with open_result(path) as result:
        assert np.allclose(result[:], expected(), rtol=1e-13)
        return {**result.execution, "strategy": result.strategy}


@pytest.mark.parametrize(
    ("function", "number", "excluded"),
    [
        ("in_forward_mode", "SIGSEGV", {"forward-mode", "forward-loop", "route forward-loop"}),
        ("in_the_check", "SIGABRT", {"route forward-loop"}),
        ("in_the_differences", "SIGBUS", {"differences"}),
    ],
)
def test_a_job_continues_without_what_ended_its_process(
    run: Callable[..., tuple[int, str]],
    tmp_path: Path,
    function: str,
    number: str,
    excluded: set[str],
) -> None:
    code, out = run(function)
    assert code == 0, out
    record = only_record(tmp_path)
    # A loop that is not considered in so short a run is not tried.
    assert excluded - {"forward-loop"} <= set(record["excluded"]) <= excluded
    assert all(f"ended by {number} while" in reason for reason in record["excluded"].values())
    assert out.count("the job starts again without it") == len(record["excluded"])
    assert sum("left out" in each or "does without" in each for each in record["fallbacks"]) == len(
        record["excluded"]
    )


def test_a_job_continues_densely_where_the_detection_ended_its_process(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, out = run("in_the_detection", "sparsity=auto")
    assert code == 0, out
    reason = only_record(tmp_path)["dense_because"]
    assert reason.startswith("the pattern was not detected: the process was ended by SIGSEGV")
    assert f"note: the matrix is computed densely: {reason}" in out


def test_a_strategy_that_ends_the_process_in_a_block_is_left_out(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    points = np.linspace(0.5, 1.5, 24).reshape(4, 6)
    np.save(tmp_path / "points.npy", points)
    # At many points the function is evaluated for each block that is not measured.
    options = ("points=leading", "inputs.path=points.npy", "chunk_size=6")
    code, out = run("in_a_late_block", *options, point="inputs=numpy")
    assert code == 0, out
    (path,) = tmp_path.glob("runs/*/result.h5")
    assert verify_result(path).ok
    with open_result(path) as result:
        assert np.allclose(result[:], np.stack([expected(x) for x in points]), rtol=1e-13)
        (left_out,) = result.execution["excluded"]
        # What was committed before is kept, and the file names both strategies.
        assert result.strategy.split(", ")[0] == left_out
        assert len(result.strategy.split(", ")) == 2
        assert result.execution["lines_resumed"] >= 6, out
    assert "computed rows 6 to 12" in out


def test_a_strategy_that_was_asked_for_is_not_replaced(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, out = run("in_forward_mode", "strategy=forward-mode")
    assert code == 139
    (message,) = out.split("\n", 1)[1].splitlines()
    assert message.startswith("error: the process was ended by SIGSEGV while strategy forward-mode")
    assert "valid are also vectorize, reverse-loop, forward-loop" in message
    (status,) = tmp_path.glob("runs/*/status.json")
    found = json.loads(status.read_text())
    assert found["state"] == "failed"
    assert message == f"error: {found['message']}"
    # The stack is in the log, and ends in the user's function.
    log = status.with_name("job.log").read_text()
    assert "Fatal Python error: Segmentation fault" in log
    assert "in in_forward_mode" in log


def test_a_function_that_ends_every_process_is_not_tried_for_ever(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, out = run("always")
    assert code == 132
    assert out.count("the job starts again") == 1
    assert "error: the process was ended by SIGILL while the function was evaluated" in out
    assert "Traceback" not in out


def test_each_strategy_is_left_out_once_and_named(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, out = run("in_derivatives")
    assert code == 1
    message = out[out.index("error: no strategy can compute this job:") :]
    for strategy in ("forward-mode", "vectorize", "forward-loop", "reverse-loop"):
        assert f"\n  {strategy}: the process was ended by SIGSEGV" in message
    assert out.count("the job starts again without it") == 4


def test_a_job_that_is_killed_from_outside_is_not_started_again(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    np.save(tmp_path / "points.npy", np.linspace(0.5, 1.5, 24).reshape(4, 6))
    options = ("points=leading", "inputs.path=points.npy", "chunk_size=6", "progress=quiet")
    code, out = run("killed", *options, point="inputs=numpy")
    assert code == 137
    (message,) = out.split("\n", 1)[1].splitlines()
    assert message.startswith("error: the process was ended by SIGKILL while strategy ")
    assert message.endswith("what was computed is kept; the same command resumes it")


def test_a_sweep_continues_after_the_job_that_was_ended(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, out = run("smooth,deadly:in_forward_mode,deadly:in_the_differences", "--multirun")
    assert code == 0, out
    excluded = {}
    for path in tmp_path.glob("runs/*/result.h5"):
        with open_result(path) as result:
            assert np.allclose(result[:], expected(), rtol=1e-13)
            excluded[result.function] = set(result.execution.get("excluded", ()))
    assert excluded["deadly:smooth"] == set()
    assert excluded["deadly:in_the_differences"] == {"differences"}
    assert "forward-mode" in excluded["deadly:in_forward_mode"]
