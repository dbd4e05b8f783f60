"""The tests of devices on the software accelerator, in an interpreter that loads it with torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.accelerator import software

ROOT = Path(__file__).parents[2]
# Replacements of torch's functions stand in for what the software accelerator is not or has not.
STAND_INS = "tests/jobs/machine/test_accelerator.py"
OF_OTHER_KINDS = [
    "seed_generators: torch.default_generator.manual_seed(seed)",
    "same_random_numbers: return torch.random.fork_rng(devices=[])",
    "has_statistics: return False",
    "has_statistics: return False",
    "device_memory: total = torch.mps.recommended_max_memory()",
    "device_memory: return total - torch.mps.current_allocated_memory(), total",
    "allocated_memory: return torch.mps.current_allocated_memory()",
    "peak_allocated_memory: return torch.mps.driver_allocated_memory()",
    "release_cache: return",
    "release_cache: return",
    "release_cache: module.empty_cache()",
    "copies_overlap: return False",
    "lock_pages: runtime: Any = torch.cuda.cudart()",
    "lock_pages: if int(runtime.cudaHostRegister(memory.data_ptr(), memory.numel(), 0)):",
    "lock_pages: with suppress(RuntimeError):",
    "lock_pages: torch.zeros(1, device=device)",
]


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
    return {**without, **kind, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def test_the_tests_of_devices_pass_and_reach_every_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    missed = tmp_path / "missed.json"
    done = subprocess.run(
        [*command, "tests/accelerator/on_device", STAND_INS],
        cwd=ROOT,
        env={**environment, "AUTODIFF_JOBS_MISSED_LINES": str(missed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert json.loads(missed.read_text()) == {"here": OF_OTHER_KINDS, "anywhere": []}
