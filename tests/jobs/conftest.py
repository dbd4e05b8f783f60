"""Fixtures that run jobs in this process, and the command line in this or another process."""

import copy
import functools
import io
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console

import outputs
from jobs.configuration.checks import check_config
from jobs.configuration.registry import GROUPS, register
from jobs.execution.execute import execute
from jobs.job import Job, resolve
from jobs.paths import config_directory
from jobs.reporting.terminal import Display
from jobs.run import main
from outputs._verification import isolated
from tests.jobs.support.own_functions import FUNCTIONS
from tests.support import warm_interpreter
from tests.support.remembered_composition import remembered_compositions
from tests.support.warm_interpreter import run_warm


def pytest_configure() -> None:
    # torch's first forward derivative imports a module that calls a deprecated function.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))


# In place of the module, for what runs `outputs.verify`.
WARM = SimpleNamespace(run=lambda command, **options: run_warm(command))


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command line."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Path:
        return Path(self.out.splitlines()[-1])


@pytest.fixture
def compose_config() -> Callable[..., DictConfig]:
    """Compose the options of a command line, with Hydra's own options if `hydra` is true."""
    register()

    def composed(*overrides: str, hydra: bool = False) -> DictConfig:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_directory())):
            return compose("config", [*overrides], return_hydra_config=hydra)

    return composed


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory in which jobs are started; modules that they import are removed afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def own(directory: Path) -> Path:
    """Write the user's module `own` into the directory in which jobs are started."""
    (directory / "own.py").write_text(FUNCTIONS)
    return directory


@functools.cache
def composed_groups(*choices: str) -> DictConfig:
    """Compose options with chosen members of groups, once: it takes longer than a small job."""
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(config_directory())):
        return compose("config", [*choices])


@pytest.fixture
def resolved(directory: Path) -> Callable[..., Job]:
    """Resolve the job of a command line."""

    def job(*overrides: str) -> Job:
        choices = [each for each in overrides if each.partition("=")[0] in GROUPS]
        config = copy.deepcopy(composed_groups(*choices))
        config.merge_with_dotlist([each for each in overrides if each not in choices])
        return resolve(check_config(config))

    return job


@pytest.fixture
def said() -> io.StringIO:
    """The output of jobs in this process."""
    return io.StringIO()


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs compute all blocks from the first to the last: planning keeps none for them."""
    monkeypatch.setattr("jobs.planning.trials.keep", lambda stream, block: None)


@pytest.fixture
def quiet(said: io.StringIO) -> Display:
    return Display(Console(file=said, width=1000))


@pytest.fixture
def run_job(
    resolved: Callable[..., Job], quiet: Display
) -> Iterator[Callable[..., outputs.Result]]:
    """Run a job, or that of a command line, in this process and open its result."""
    opened: list[outputs.Result] = []

    def run(*given: Job | str, **options: Any) -> outputs.Result:
        job = given[0] if isinstance(given[0], Job) else resolved(*given)
        opened.append(outputs.open_result(execute(job, quiet, **options)))
        return opened[-1]

    yield run
    for result in opened:
        result.close()


@pytest.fixture
def command_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """Run the program in this process, as the interpreter would."""

    def run(*arguments: str) -> Finished:
        # main() sets the variable; monkeypatch restores it after the test.
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", ["jobs.run", *arguments])
        capfd.readouterr()
        # Hydra's own configuration logs to the streams of this test.
        handlers = logging.getLogger().handlers[:]
        code: str | int | None = 0
        try:
            with remembered_compositions():
                main()
        except SystemExit as exit:
            code = exit.code
        finally:
            logging.getLogger("jobs").handlers.clear()
            logging.getLogger().handlers[:] = handlers
        out, err = capfd.readouterr()
        if isinstance(code, str):
            return Finished(1, out, err + code + "\n")
        return Finished(code or 0, out, err)

    return run


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., Finished]:
    """Run the program in a separate process; a given command by an interpreter that starts anew."""

    def run(*arguments: str, cwd: Path, command: tuple[str, ...] = ()) -> Finished:
        if command:
            done = subprocess.run(
                [*command, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
            )
        else:
            done = run_warm([sys.executable, "-m", "jobs.run", *arguments], cwd=cwd)
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session", autouse=True)
def warm_workers() -> Iterator[None]:
    """Let worker processes, and those that verify files, begin with what they import."""
    with warm_interpreter.warm_workers(), patch.object(isolated, "subprocess", WARM):
        yield
