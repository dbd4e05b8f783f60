"""The tests of devices on the software accelerator, in an interpreter that loads it with torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.accelerator import software

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in (Path(__file__).parent / "on_device").glob("test_*.py"))


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of an interpreter that loads the software accelerator with torch."""
    if (reason := software.why_not()) is not None:
        pytest.skip(reason)
    folder = software.library().parent
    path = os.pathsep.join([str(ROOT), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    kind = {"AUTODIFF_JOBS_ACCELERATOR": software.KIND}
    # A job that kills the runner's own processes, and pytest's plugins, are not to reach this one.
    without = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return {**without, **kind, "PYTHONPATH": path}


@pytest.mark.parametrize("file", FILES)
def test_the_tests_of_devices_pass(file: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"tests/accelerator/on_device/{file}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
