"""The script for a machine with a GPU runs through on a machine without one."""

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/on_device.sh"


def test_a_trial_on_the_processor_writes_all_figures(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = subprocess.run([SCRIPT, "cpu", out], capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["machine"]["device"].startswith("cpu")
    steps = report["steps"]
    assert list(steps) == ["cuda_tests", "device_tests", "jobs", "speed"]
    assert not any(step["code"] for step in steps.values())
    assert "tests collected" in steps["device_tests"]["end"][-1]
    jobs = steps["jobs"]["figures"]
    assert jobs["mlp"]["verified"]
    assert jobs["mlp"]["peak_bytes"] > 0
    assert jobs["mlp"]["seconds_of_the_process"] > 0
    assert jobs["two_jobs"]["seconds_of_the_processes"] > 0
    assert steps["speed"]["figures"]["workloads"]


def test_the_wheels_that_must_travel_are_those_of_the_constraints() -> None:
    done = subprocess.run([SCRIPT, "--wheels"], capture_output=True, text=True, check=True)
    wheels = done.stdout.split()
    assert any(each.startswith("hydra-core==") for each in wheels)
    assert not any(each.startswith("torch=") for each in wheels)
    assert set(filter(lambda each: "==" in each and "*" not in each, wheels)) <= set(
        (ROOT / "constraints.txt").read_text().split()
    )


def test_without_arguments_the_script_explains_itself() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True)
    assert done.returncode == 2
    assert "benchmarks/on_device.sh cuda figures.json" in done.stdout
