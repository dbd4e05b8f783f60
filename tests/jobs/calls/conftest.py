"""Calls in this process whose results are closed, and programs in processes of their own."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import jobs
from outputs import Result, SparseResult
from tests.support.warm_interpreter import run_warm


@pytest.fixture
def compute(directory: Path) -> Iterator[Callable[..., Any]]:
    """Return `jobs.compute`, silent unless asked, whose results are closed after the test."""
    opened: list[Result | SparseResult] = []

    def call(*given: Any, **options: Any) -> Result | SparseResult:
        opened.append(jobs.compute(*given, **{"progress": "quiet", **options}))
        return opened[-1]

    yield call
    for result in opened:
        # A test may have closed it, or removed its directory.
        with contextlib.suppress(Exception):
            result.close()


@pytest.fixture
def run_program(directory: Path) -> Callable[..., str]:
    """Run a script in its own process; return what it printed, which must be no error."""

    def run(code: str, name: str = "script.py", **environment: str) -> str:
        file = directory / name
        file.write_text(code)
        done = run_warm(
            [sys.executable, str(file)], cwd=directory, env={**_ENVIRONMENT, **environment}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(Path.home())}


@pytest.fixture
def positions() -> torch.Tensor:
    return torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
