"""Time commands as whole processes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def timed(command: list[str], place: str | Path) -> tuple[float, float, str]:
    """Run a process; return its processor time, its time by the clock, and what it printed."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        command, cwd=place, env=environment(), capture_output=True, text=True, check=False
    )
    clock, after = time.perf_counter() - began, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    spent = after.children_user - before.children_user
    return spent + after.children_system - before.children_system, clock, done.stdout


def environment() -> dict[str, str]:
    """Return the environment of one thread."""
    # A job of an installed package is not compiled from its source each time.
    given = {name: each for name, each in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**given, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
