"""Run sparse jobs in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.execution.execute import execute
from jobs.reporting.terminal import Display


@pytest.fixture
def run_sparse(resolved: Callable[..., Any], quiet: Display) -> Callable[..., Path]:
    def run(*options: str, **more: Any) -> Path:
        return execute(resolved(*options), quiet, **more)

    return run
