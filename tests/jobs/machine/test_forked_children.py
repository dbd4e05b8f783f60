"""Processes that the user's function forks do not inherit how the job treats signals."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.machine.interruption import leaving_after_a_block, leaving_at_once
from outputs import Result

POOL = """
import multiprocessing

import torch

def half(value):
    return value / 2

def pooled(x):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        factors = pool.map(half, [1.0, 2.0, 4.0])
    return x * torch.tensor(factors, dtype=x.dtype)
"""


@pytest.mark.parametrize("handling", [leaving_at_once, leaving_after_a_block])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_forked_child_dies_of_a_signal(
    handling: Callable[[], AbstractContextManager[Any]], number: int
) -> None:
    with handling():
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(child, number)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == number


# torch warns of forks in a process with threads; that is the function's affair.
@pytest.mark.filterwarnings("ignore")
def test_a_function_may_fork_a_pool(directory: Path, run_job: Callable[..., Result]) -> None:
    (directory / "pools.py").write_text(POOL)
    with leaving_at_once(), leaving_after_a_block():
        result = run_job(
            "op=jacobian",
            "function=python",
            "function.target=./pools.py:pooled",
            "inputs=constants",
            "inputs.values.x=[1.0,2.0,3.0]",
            "strategy=reverse-loop",
        )
    np.testing.assert_allclose(result[...], np.diag([0.5, 1.0, 2.0]))
