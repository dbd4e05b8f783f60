"""Tests that need an accelerator, whose kind AUTODIFF_JOBS_ACCELERATOR names: software, cuda, xpu.

Without the variable nothing here is collected. The software accelerator must be loaded with torch:
its devices make torch start threads, and `devices=auto` would take them in other tests.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jobs.machine import accelerator
from tests.accelerator.lines import Lines
from tests.jobs.conftest import (
    command_line,
    directory,
    pytest_configure,
    quiet,
    resolved,
    run_job,
    said,
)

__all__ = [
    "command_line",
    "directory",
    "pytest_configure",
    "quiet",
    "resolved",
    "run_job",
    "said",
]

KIND = os.environ.get("AUTODIFF_JOBS_ACCELERATOR", "")
collect_ignore_glob = [] if KIND else ["test_*.py"]

# Where the lines are written that these tests do not reach, and those that no test of the run does.
MISSED = os.environ.get("AUTODIFF_JOBS_MISSED_LINES")
LINES = Lines(accelerator) if MISSED else None
reached_here: set[int] = set()


def pytest_sessionfinish() -> None:
    if LINES is not None and MISSED is not None:
        missed = {
            "here": LINES.missed(reached_here),
            "anywhere": LINES.missed(reached_here | LINES.reached),
        }
        Path(MISSED).write_text(json.dumps(missed))


@pytest.fixture
def device() -> torch.device:
    """The first device of the kind."""
    return torch.device(KIND, 0)


@pytest.fixture
def second() -> torch.device:
    """Another device of the kind."""
    if torch.accelerator.device_count() < 2:
        pytest.skip(f"needs two devices of the kind {KIND}")
    return torch.device(KIND, 1)


@pytest.fixture(autouse=True)
def lines() -> Iterator[None]:
    """Remember which lines the tests of this directory reach."""
    yield
    if LINES is not None:
        reached_here.update(LINES.reached)


@pytest.fixture(autouse=True)
def software_only(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip what the software accelerator alone can show; leave its limits as they were."""
    if KIND != "software":
        if request.node.get_closest_marker("hostile"):
            pytest.skip("shown by the software accelerator")
        yield
        return
    torch.ops.software.forget_calls()
    yield
    for each in range(2):
        torch.accelerator.synchronize(each)
        torch.ops.software.set_limit(each, 2**30)
