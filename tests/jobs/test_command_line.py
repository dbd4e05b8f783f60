"""The command line: exit codes, messages, help, sweeps, directories."""

import dataclasses
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

import outputs
from jobs import doctor
from jobs.configuration.registry import GROUPS
from jobs.configuration.schema import JobConfig
from jobs.reporting.terminal import Display
from jobs.version import own_version
from outputs import Verdict, VerificationState, open_result

Run = Callable[..., Any]
MLP = ("op=jacobian", "function=mlp", "function.n=4")
PYTHON = ("op=jacobian", "function=python")

USER = """
import torch
def f(x): raise ValueError("no good")
def v(x): return x**2
p = torch.ones(3)
"""


def test_an_unknown_flag_is_reported_with_the_valid_ones(command_line: Run) -> None:
    ended = command_line("--nowhere")
    assert ended.code == 2
    assert "--multirun" in ended.err
    assert "unrecognized arguments: --nowhere" in ended.err


def test_a_mistake_in_a_process_of_its_own(run_cli: Run, tmp_path: Path) -> None:
    ended = run_cli("op=hesian", cwd=tmp_path)
    assert ended.code == 1
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1


def test_the_log_of_a_failed_job_has_the_traceback(
    command_line: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "user.py").write_text(USER)
    arguments = (*PYTHON, "function.target=user:f", "function.point=user:p")
    ended = command_line(*arguments)
    assert ended.code == 1
    (log,) = directory.glob("runs/*/job.log")
    assert "Traceback" in log.read_text()
    assert 'raise ValueError("no good")' in log.read_text()
    assert "Traceback" not in ended.err


# Help


def schema_options() -> set[str]:
    """Return every option of the schema, as it is spelled on the command line."""
    options = {field.name for field in dataclasses.fields(JobConfig)} - {"output"}
    options.add("output.compression")
    for group, members in GROUPS.items():
        for schema in members.values():
            fields = {field.name for field in dataclasses.fields(schema)}
            fields -= {"name", "source", "of", "by", "kind", "mode", "held_data"}
            options |= {f"{group}.{name}" for name in fields}
    return options


def test_help_names_every_option_and_choice(command_line: Run) -> None:
    ended = command_line("--help")
    assert ended.code == 0
    words = ended.out
    problem_options = {"samples", "inducing", "width", "heads", "channels", "seed"}
    for option in schema_options():
        group, _, name = option.partition(".")
        assert option in words or (group == "function" and name in problem_options), option
        assert name in words
    for members in GROUPS.values():
        for name in members:
            assert name in words
    assert max(map(len, words.splitlines())) <= 110
    assert "hydra.run" not in words


def test_the_composed_configuration_is_yaml_of_every_option(command_line: Run) -> None:
    ended = command_line("--cfg", "job", "function=gp_residual", "op=vhp", "strategy=vectorize")
    assert ended.code == 0
    composed = yaml.safe_load(ended.out)
    assert list(composed) == [field.name for field in dataclasses.fields(JobConfig)]
    assert composed["function"]["inducing"] == 50
    assert composed["op"] == "vhp"


# What is installed


def test_the_version_is_printed(run_cli: Run, tmp_path: Path) -> None:
    ended = run_cli("--version", cwd=tmp_path)
    assert (ended.code, ended.out) == (0, f"autodiff-jobs {own_version()}\n")


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("strat", "strategy="), ("function=ro", "function=rosenbrock"), ("inputs=saf", "safetensors")],
)
def test_the_shell_completes_options(
    typed: str, completed: str, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", f"autodiff-jobs {typed}")
    ended = run_cli("--shell-completion", "query=bash", cwd=tmp_path)
    assert ended.code == 0
    assert completed in ended.out
    installed = run_cli("--shell-completion", "install=bash", cwd=tmp_path)
    assert "complete -o" in installed.out


def test_the_doctor_describes_the_installation_and_tests_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor.main(["--runs", "somewhere/below"])
    out = capsys.readouterr().out
    for word in ("torch ", "h5py ", "BasicLauncher", "gzip", "cpu ", " free at ", "passed in "):
        assert word in out
    assert not list(directory.iterdir())


def test_the_doctor_reports_what_fails(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "SELF_TEST", ("op=hesian",))
    with pytest.raises(SystemExit) as ended:
        doctor.main([])
    assert ended.value.code == 1
    assert "failed: the job ended with 1: error: op=hesian" in capsys.readouterr().out


def test_the_doctor_names_a_missing_compiler_and_what_that_means(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "bin").mkdir()
    monkeypatch.setenv("PATH", str(directory / "bin"))
    monkeypatch.delenv("CXX", raising=False)
    doctor.main(["--no-test"])
    out = capsys.readouterr().out
    assert "is not installed, so derivatives are not compiled for the CPU" in out
    own = directory / "bin" / "own++"
    own.write_text("#!/bin/sh\necho own compiler 1.2\n")
    own.chmod(0o755)
    monkeypatch.setenv("CXX", "own++")
    doctor.main(["--no-test"])
    assert f"own compiler 1.2 ({own})" in capsys.readouterr().out


# One job


def test_the_last_line_is_the_absolute_path_of_the_result(
    command_line: Run, directory: Path
) -> None:
    ended = command_line(*MLP)
    assert ended.code == 0
    assert ended.err == ""
    assert ended.result.is_absolute()
    assert ended.result.is_relative_to(directory / "runs")
    assert outputs.open_result(ended.result).shape == (4, 4)
    for word in ("4 rows x 4 columns", "forward-mode", "verified", "to write", "free"):
        assert word in ended.out


def test_progress_without_a_terminal_is_lines_with_the_time_left(
    command_line: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.reporting.terminal.SECONDS_BETWEEN_LINES", 0)
    out = command_line(*MLP, "strategy=forward-mode", "chunk_size=1").out
    lines = [line.strip() for line in out.splitlines() if line.endswith(" left")]
    assert [line.partition(" (")[0] for line in lines] == [f"{n} of 4 columns" for n in range(1, 5)]
    assert lines[1].startswith("2 of 4 columns (50 %), ")
    assert lines[-1].endswith("0.0 s left")
    assert "\r" not in out
    assert "\x1b" not in out


def test_a_quiet_job_prints_the_path_alone(command_line: Run) -> None:
    for _ in range(2):
        ended = command_line(*MLP, "progress=quiet")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == f"{ended.result}\n"


def test_a_job_tells_a_program_in_lines_of_json(
    command_line: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.reporting.json_lines.SECONDS_BETWEEN_LINES", 0)
    job = (*MLP, "strategy=forward-mode", "progress=json")
    told = command_line(*job, "chunk_size=1").out.splitlines()
    events = [json.loads(line) for line in told]
    kinds = [event["event"] for event in events]
    assert kinds == ["plan", *["progress"] * 4, "done"]
    assert (events[0]["rows"], events[0]["axis"]) == (4, "columns")
    assert [event["done"] for event in events[1:-1]] == [1, 2, 3, 4]
    for event in events[1:-1]:
        assert event["bytes_per_second"] == pytest.approx(32 * event["lines_per_second"])
        assert event["memory_bytes"] > 10**7
    assert open_result(events[-1]["result"]).shape == (4, 4)
    (again,) = command_line(*job).out.splitlines()
    assert json.loads(again)["finished_already"] is True


@pytest.mark.parametrize("state", VerificationState)
def test_colour_and_card_are_for_terminals(state: VerificationState) -> None:
    for is_terminal in (True, False):
        said = io.StringIO()
        display = Display(Console(file=said, force_terminal=is_terminal, width=60))
        display.outcome(Verdict(state, "why"), {"matrix": "/hessian"}, "the path")
        words = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).split("done")[1]
        assert words.index(f"{state}  why") < words.index("/hessian")
        assert ("\x1b[" in said.getvalue()) is is_terminal
        assert said.getvalue().splitlines()[-1].strip() == "the path"


@pytest.mark.parametrize("name", ["with space", "it's", 'a "b"', "a=b,c", "[x](y){z}", "ünï"])
def test_a_directory_of_any_name(
    name: str, directory: Path, command_line: Run, monkeypatch
) -> None:
    start = directory / name
    start.mkdir()
    monkeypatch.chdir(start)
    np.save(start / "point.npy", np.arange(4.0))
    ended = command_line(*MLP, "inputs=numpy", "inputs.path=point.npy", "runs=my runs")
    assert ended.code == 0, ended.err
    assert ended.result.is_relative_to(start / "my runs")
    with open_result(ended.result) as result:
        assert result.points["x"].tolist() == [0, 1, 2, 3]


# Sweeps


def test_a_sweep_of_all_six_agrees(command_line: Run, directory: Path) -> None:
    ended = command_line(
        *("--multirun", "op=jacobian,hessian", "strategy=reverse-loop,vectorize,forward-mode"),
        *("function=gp_residual", "function.n=9", "function.inducing=4"),
    )
    assert ended.code == 0, ended.err
    paths = sorted(directory.glob("runs/*/result.h5"))
    assert {str(path) for path in paths} <= set(ended.out.splitlines())
    assert len(paths) == 6
    for operation, shape in (("jacobian", (9, 5)), ("hessian", (5, 5))):
        found = {}
        for path in paths:
            with open_result(path) as result:
                if result.operation == operation:
                    assert result.shape == shape
                    found[result.strategy] = result[...]
        assert sorted(found) == ["forward-mode", "reverse-loop", "vectorize"]
        for matrix in found.values():
            np.testing.assert_allclose(matrix, found["reverse-loop"], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("values", ["mlp,rosenbrock", "rosenbrock,mlp"])
def test_a_job_that_fails_does_not_stop_a_sweep(
    values: str, command_line: Run, directory: Path
) -> None:
    ended = command_line("--multirun", "op=hessian", f"function={values}", "function.n=5")
    assert ended.code == 1
    # Hydra prints the second line, with the overrides of the job that failed.
    message, which = ended.err.splitlines()
    assert message.startswith("error: op=hessian function=mlp has no meaning")
    assert "function=mlp" in which
    (path,) = directory.glob("runs/*/result.h5")
    assert "rosenbrock" in path.parent.name
    assert str(path) in ended.out.splitlines()


def test_a_sweep_started_again_runs_only_what_is_missing(
    command_line: Run, directory: Path
) -> None:
    sweep = ("--multirun", "op=jacobian", "function=mlp,rosenbrock")
    assert command_line(*sweep[:2], "function=mlp", "function.n=5").code == 0
    ended = command_line(*sweep, "function.n=5")
    assert ended.code == 0
    assert ended.out.count("finished already") == 1
    assert len(list(directory.glob("runs/*/result.h5"))) == 2


# Directories

LOOK = "import jobs, outputs, json; print(json.dumps([jobs.__file__, outputs.__file__]))"


def test_foreign_directories_of_the_same_names_do_no_harm(run_cli: Run, tmp_path: Path) -> None:
    for name in ("outputs", "jobs", "conf", "autodiff_core"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "2020-01-01").mkdir()
    (tmp_path / "user.py").write_text(LOOK + "\n" + USER)
    ended = run_cli(*PYTHON, "function.target=user:v", "function.point=user:p", cwd=tmp_path)
    assert ended.code == 0, ended.err
    found = [Path(name) for name in json.loads(ended.out.splitlines()[0])]
    assert found == [Path(sys.modules[name].__file__ or "") for name in ("jobs", "outputs")]
    assert ended.result.is_relative_to(tmp_path / "runs")
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["2020-01-01"]


@pytest.mark.skipif(
    not (Path(sys.executable).parent / "autodiff-jobs").exists(),
    reason="the package is not installed, so that there is no console script",
)
def test_the_console_script_runs_also_beside_packages_of_the_same_name(
    run_cli: Run, tmp_path: Path
) -> None:
    # `python -m` puts the current directory first on the path; the script does not.
    for name in ("outputs", "jobs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')")
    script = str(Path(sys.executable).parent / "autodiff-jobs")
    ended = run_cli(*MLP, cwd=tmp_path, command=(script,))
    assert ended.code == 0, ended.err
    assert ended.result.is_file()


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write")
def test_a_directory_that_may_not_be_written(run_cli: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    command = (sys.executable, "-m", "jobs.run")
    if os.geteuid() == 0:
        command = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", *command)
    try:
        ended = run_cli(*MLP, cwd=tmp_path, command=command)
    finally:
        tmp_path.chmod(0o755)
    assert ended.code == 1
    (message,) = ended.err.splitlines()
    assert "ermission denied" in message
    assert "runs" in message


@pytest.mark.parametrize(
    "options", [("op=vjp", "strategy=forward-mode"), ("dtype=float65",), ("stategy=auto",), ("=3",)]
)
def test_a_failure_is_an_event_for_programs(
    command_line: Callable[..., Any], options: tuple[str, ...]
) -> None:
    finished = command_line(*options, "progress=json")
    assert finished.code == 1
    event = json.loads(finished.out.splitlines()[-1])
    assert event["event"] == "failed"
    assert event["message"] in finished.err
    assert finished.err.startswith("error: ")
