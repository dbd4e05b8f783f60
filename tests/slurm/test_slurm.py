"""Jobs on a real SLURM are distributed, signalled, killed and queued again, and lose nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import box
import scenarios
from scenarios import LINES, Scenario

from outputs import Result, open_result
from outputs.merge import main as merge

pytestmark = [
    pytest.mark.slurm,
    # One process starts the cluster and runs all of these tests.
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(box.why_not()), reason=box.why_not()),
    pytest.mark.skipif(
        os.environ.get("AUTODIFF_JOBS_SLURM") != "1",
        reason="a cluster and ten jobs at once take minutes: make test-slurm",
    ),
]

# The longest comes first; with more at once it could not compute between its interruptions.
SIDE_BY_SIDE = 5


class Running:
    """The scenarios, all started at once, and their outcomes."""

    def __init__(self, cluster: box.SlurmBox, directory: Path, pool: ThreadPoolExecutor) -> None:
        self._scenarios = {
            name: Scenario(cluster, directory / name)
            for name in (
                *("three_signals", "preemption", "preemption_unannounced", "array_with_a_failure"),
                *("requeue_by_signal", "crashed_node", "killed", "interrupted_launcher"),
                *("shards_over_nodes", "submitted_from_python"),
            )
        }
        self._futures: dict[str, Future[Any]] = {}
        for name, scenario in self._scenarios.items():
            if name == "preemption_unannounced":
                # The warning before preemption is a setting of the whole cluster: run in sequence.
                self._futures[name] = pool.submit(self._unannounced, cluster, scenario)
            else:
                self._futures[name] = pool.submit(getattr(scenarios, name), scenario)

    def _unannounced(self, cluster: box.SlurmBox, scenario: Scenario) -> Any:
        self._futures["preemption"].exception()
        cluster.configure(warn_before_preemption=False)
        return scenarios.preemption(scenario)

    def __getitem__(self, name: str) -> tuple[Scenario, Any]:
        """Return a scenario and its outcome."""
        return self._scenarios[name], self._futures[name].result()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("slurm")
    with box.running(directory / "box") as cluster, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield Running(cluster, directory, pool)


def require_right(result: Result) -> None:
    x = result.points["x"]
    eye = np.eye(LINES)
    expected = eye[:, None, :] * x[None, :, None] + eye[None, :, :] * x[:, None, None]
    np.testing.assert_allclose(result[...], expected.reshape(-1, LINES), rtol=1e-12)


def require_resumed(scenario: Scenario, restarts: range) -> None:
    """Check that there is one directory and one result, with blocks of an earlier start.

    SLURM may end a start before its first evaluation; the start counts nevertheless.
    """
    (run,) = scenario.directory.glob("runs/*-jacobian-*")
    (path,) = scenario.results()
    assert path.parent == run
    with open_result(path) as result:
        require_right(result)
        assert result.execution["lines_resumed"] > 0
    assert max(int(note[1]) for note in scenario.notes()) in restarts


def test_an_array_has_a_device_each_and_a_failing_job_stops_no_other(outcome: Running) -> None:
    scenario, (first, again) = outcome["array_with_a_failure"]
    devices = {tuple(note[2:]) for note in scenario.notes() if note[2] != "none"}
    jobs = {note[0] for note in scenario.notes() if note[2] != "none"}
    # No two of the three concurrent jobs had the same device.
    assert len(jobs) == len(devices) == 3, devices
    assert first.code == 1
    assert "not yet repaired" in first.errors
    assert "Traceback" not in first.errors
    assert again.code == 0, again.errors
    # The second sweep skipped the jobs that the first had finished.
    assert again.errors.count("finished already") == 3
    assert len(scenario.results()) == 4
    for path in scenario.results():
        with open_result(path) as result:
            require_right(result)


def test_a_signal_queues_a_job_again_in_its_directory(outcome: Running) -> None:
    scenario, ended = outcome["requeue_by_signal"]
    assert ended.code == 0, ended.errors
    require_resumed(scenario, restarts=range(1, 2))


@pytest.mark.parametrize("name", ["preemption", "preemption_unannounced"])
def test_a_preempted_job_is_resumed_later(outcome: Running, name: str) -> None:
    scenario, ended = outcome[name]
    assert ended.code == 0, ended.errors
    require_resumed(scenario, restarts=range(1, 2))


def test_a_killed_job_is_reported_and_finished_by_the_next_start(outcome: Running) -> None:
    scenario, (first, unfinished, again) = outcome["killed"]
    assert first.code == 1
    assert "error: Job" in first.errors
    assert "Traceback" not in first.errors
    assert len(unfinished) == 1
    assert again.code == 0, again.errors
    require_resumed(scenario, restarts=range(1))


def test_a_job_of_a_crashed_node_is_resumed_on_another_node(outcome: Running) -> None:
    scenario, ended = outcome["crashed_node"]
    # At the wrong moment, sacct reports a job as lost that is about to be queued again.
    assert ended.code == 0 or "NODE_FAIL" in ended.errors, ended.errors
    require_resumed(scenario, restarts=range(1, 2))
    assert len({note[2] for note in scenario.notes()}) == 2


def test_jobs_continue_when_the_launcher_is_interrupted(outcome: Running) -> None:
    scenario, ended = outcome["interrupted_launcher"]
    assert ended.code == 130
    assert "interrupted" in ended.errors
    assert "Traceback" not in ended.errors
    (path,) = scenario.results()
    with open_result(path) as result:
        require_right(result)


def test_shards_of_two_nodes_are_the_matrix(outcome: Running, tmp_path: Path) -> None:
    scenario, ended = outcome["shards_over_nodes"]
    assert ended.code == 0, ended.errors
    assert {note[2] for note in scenario.notes()} == {"n1", "n2"}
    (run,) = scenario.directory.glob("runs/*-jacobian-*")
    assert len(list(run.glob("shard-*-of-8/result.h5"))) == 8
    assert merge([str(run), "-o", str(run / "result.h5")]) == 0
    whole = scenario.run_here("runs=whole")
    assert whole.code == 0, whole.errors
    (unsharded,) = (scenario.directory / "whole").glob("*/result.h5")
    with open_result(run / "result.h5") as merged, open_result(unsharded) as expected:
        assert merged.fingerprint == expected.fingerprint
        np.testing.assert_array_equal(merged[...], expected[...])
        require_right(merged)


def test_tasks_of_a_call_from_python_resume_after_a_signal_and_a_cancellation(
    outcome: Running,
) -> None:
    scenario, (calls, seen) = outcome["submitted_from_python"]
    assert [each.code for each in calls] == [0, 0, 0], calls
    assert "queued" in calls[0].errors
    assert "this job was submitted before" in calls[1].errors
    # Another process waits for both; one was cancelled, the other has resumed.
    assert seen[0].code == 1
    assert "shard 1/2 is failed (" in seen[0].errors
    assert ": SLURM says CANCELLED" in seen[0].errors
    assert seen[1].code == 0, seen[1].errors
    (run,) = scenario.directory.glob("runs/call-jacobian-*")
    with open_result(run / "result.h5") as result:
        x = result.points["x"]
        eye = np.eye(LINES)
        expected = eye[:, None, :] * x[None, :, None] + eye[None, :, :] * x[:, None, None]
        np.testing.assert_allclose(result[...], 2 * expected.reshape(-1, LINES), rtol=1e-12)
    for shard in run.glob("shard-*"):
        with open_result(shard / "result.h5", allow_partial=True) as result:
            assert result.execution["lines_resumed"] > 0


def test_a_job_that_needs_more_than_its_time_is_queued_again_three_times(
    outcome: Running,
) -> None:
    scenario, ended = outcome["three_signals"]
    assert ended.code == 0, ended.errors
    require_resumed(scenario, restarts=range(3, 4))


def test_a_time_limit_queues_a_job_again_until_it_is_done(tmp_path: Path) -> None:
    """Use SLURM's own signal, before the shortest time limit that SLURM supports."""
    with box.running(tmp_path / "box") as cluster:
        scenario = Scenario(cluster, tmp_path / "time_limit")
        ended = scenarios.time_limit(scenario)
    assert ended.code == 0, ended.errors
    require_resumed(scenario, restarts=range(3, 20))
