"""Sweeps on this machine: launchers, failures, restarts, and the warning about SLURM accounting."""

import os
import pickle
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ConfigurationError, JobError
from jobs.machine.launchers import accounting_problem, is_of_launcher
from outputs import open_result

FAILING = """
from pathlib import Path
import torch

def good(x): return x.sin()
def better(x): return x.cos()
def bad(x):
    if not Path("repaired").exists():
        raise ValueError("not yet repaired")
    return x.exp()

def point(): return torch.arange(4.0)
"""
SWEEP = (
    *("--multirun", "op=jacobian", "strategy=vectorize", "function=python"),
    *("function.target=sweep:good,sweep:bad,sweep:better", "function.point=sweep:point"),
)


def test_a_failed_job_stops_no_other_and_is_run_again(
    command_line: Callable[..., Any], directory: Path
) -> None:
    (directory / "sweep.py").write_text(FAILING)
    first = command_line(*SWEEP)
    assert first.code == 1
    assert re.search(r"error: function=sweep:bad.*not yet repaired", first.err)
    finished = sorted(directory.glob("runs/*/result.h5"))
    assert [path.parent.name.partition("-")[0] for path in finished] == ["better", "good"]
    before = [path.stat().st_mtime_ns for path in finished]
    (directory / "repaired").touch()
    again = command_line(*SWEEP)
    assert again.code == 0, again.err
    assert "3 jobs: 3 finished" in again.out
    assert [path.stat().st_mtime_ns for path in finished] == before
    (repaired,) = directory.glob("runs/bad-*/result.h5")
    with open_result(repaired) as result:
        assert result.complete


def test_a_configuration_that_names_the_old_callback_works(
    command_line: Callable[..., Any], directory: Path
) -> None:
    (directory / "mine.yaml").write_text(
        "defaults: [config, _self_]\n"
        "hydra: {callbacks: {sweep: {_target_: jobs.sweeps.SweepCallback}}}\n"
    )
    options = ("op=jacobian", "function=mlp", "function.n=4", "strategy=vectorize,reverse-loop")
    swept = command_line("--config-dir=.", "--config-name=mine", "--multirun", *options)
    assert swept.code == 0, swept.err
    assert "2 jobs: 2 finished" in swept.out


def test_joblib_runs_jobs_side_by_side(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "sweep.py").write_text(FAILING)
    finished = run_cli(*SWEEP, "cluster=joblib", cwd=tmp_path)
    assert finished.code == 1
    assert re.search(r"error: function=sweep:bad.*not yet repaired", finished.err)
    assert "Traceback" not in finished.err
    assert len(list(tmp_path.glob("runs/*/result.h5"))) == 2


def test_sweeps_of_the_same_second_have_directories_of_their_own(
    compose_config: Callable[..., Any],
) -> None:
    first, second = (
        compose_config(hydra=True).hydra.sweep.dir.rpartition("-")[2] for _ in range(2)
    )
    assert first != second
    composed = compose_config(hydra=True)
    assert composed.hydra.sweep.dir == composed.hydra.sweep.dir


@pytest.mark.parametrize(
    ("cluster", "launcher"),
    [("slurm", "submitit_launcher.SlurmLauncher"), ("joblib", "joblib_launcher.JoblibLauncher")],
)
def test_a_cluster_chooses_a_launcher(
    compose_config: Callable[..., Any], cluster: str, launcher: str
) -> None:
    composed = compose_config(f"cluster={cluster}", hydra=True)
    assert composed.hydra.launcher._target_.endswith(launcher)


def test_slurm_jobs_have_a_gpu_each_and_are_queued_again(
    compose_config: Callable[..., Any],
) -> None:
    launcher = compose_config(
        "cluster=slurm", "hydra.launcher.timeout_min=7", hydra=True
    ).hydra.launcher
    assert (launcher.gpus_per_node, launcher.timeout_min) == (1, 7)
    assert launcher.max_num_timeout >= 100
    assert launcher.additional_parameters == {"requeue": True}


def test_an_unknown_launcher_names_the_extra(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    wrong = run_cli("--multirun", "hydra/launcher=another_slurm", cwd=tmp_path)
    assert wrong.code == 1
    assert "comes with pip install 'autodiff-jobs[slurm]'" in wrong.err


@pytest.mark.parametrize("kind", [JobError, ConfigurationError])
def test_errors_travel_between_processes(kind: type[JobError]) -> None:
    returned = pickle.loads(pickle.dumps(kind("a message: with {braces} and 'quotes'")))
    assert type(returned) is kind
    assert str(returned) == "a message: with {braces} and 'quotes'"


def test_what_submitit_raises_in_a_job_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "submitit" / "handler.py"
    for filename, expected in ((str(path), True), (str(tmp_path / "mine.py"), False)):
        with pytest.raises(SystemExit) as caught:
            exec(compile("raise SystemExit(-1)", filename, "exec"), {})
        assert is_of_launcher(caught.value) is expected


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (None, "there is no sacct here"),
        ("exit 0", ""),
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", "accounting storage is dis"),
        ("sleep 60", "does not answer within"),
    ],
)
def test_accounting_that_does_not_answer_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, problem: str
) -> None:
    monkeypatch.setattr("jobs.machine.launchers._SECONDS_FOR_AN_ANSWER", 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin" if script else str(tmp_path))
    if script is not None:
        program = tmp_path / "sacct"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert problem in accounting_problem()
    assert bool(accounting_problem()) == bool(problem)
