"""Directories and files of the user with the names of packages that the program needs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outputs import open_result

ROOT = Path(__file__).parents[2]
MLP = ("op=jacobian", "function=mlp", "function.n=8", "progress=quiet")
# What pip writes for the entry point.
SCRIPT = f"""#!{sys.executable}
import sys
from autodiff_jobs import main
if __name__ == "__main__":
    sys.exit(main())
"""
ALL = ("jobs", "outputs", "conf", "autodiff_core", "torch", "numpy", "random", "hydra_plugins")
ENERGY = "import helper\ndef energy(x):\n    return helper.cube(x).sum()\n"
OWN = (
    *("op=hessian", "function=python", "function.target=./springs.py:energy"),
    *("inputs=numpy", "inputs.path=start.npy", "progress=quiet"),
)
Run = Callable[..., Any]


def make_package(directory: Path, name: str) -> Path:
    package = directory / name
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the wrong one')\n")
    return package


@pytest.fixture
def script(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    path = tmp_path_factory.mktemp("bin") / "autodiff-jobs"
    path.write_text(SCRIPT)
    return sys.executable, str(path)


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """Return a project with packages of all these names, and a function with its own helper."""
    for name in ALL:
        make_package(tmp_path, name)
    (tmp_path / "springs.py").write_text(ENERGY)
    (tmp_path / "helper.py").write_text("def cube(x):\n    return x**3\n")
    np.save(tmp_path / "start.npy", np.arange(1.0, 6.0))
    return tmp_path


@pytest.mark.parametrize("command", ["run", "status", "report", "doctor"])
@pytest.mark.parametrize("name", ["outputs", "autodiff_core", "torch", "rich"])
def test_a_package_that_hides_another_is_named_once(
    run_cli: Run, tmp_path: Path, name: str, command: str
) -> None:
    package = make_package(tmp_path, name)
    ended = run_cli(cwd=tmp_path, command=(sys.executable, "-m", f"jobs.{command}"))
    assert (ended.code, ended.out) == (1, "")
    (message,) = ended.err.splitlines()
    assert message.startswith(f"error: {package} hides the package {name} ")
    assert ("autodiff-jobs," if command == "run" else f"autodiff-jobs {command},") in message


@pytest.mark.parametrize("name", ["numpy", "h5py", "rich"])
def test_a_module_that_hides_what_reading_needs_is_named_once(
    run_cli: Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / f"{name}.py").touch()
    ended = run_cli("none.h5", cwd=tmp_path, command=(sys.executable, "-m", "outputs.show"))
    assert (ended.code, ended.out) == (1, "")
    (message,) = ended.err.splitlines()
    assert message.startswith(f"error: {tmp_path / name}.py hides the package {name} ")
    assert "autodiff-jobs show," in message


def test_a_file_hides_a_package_too(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "outputs.py").touch()
    ended = run_cli(cwd=tmp_path, command=(sys.executable, "-mjobs.status"))
    assert ended.err.startswith(f"error: {tmp_path / 'outputs.py'} hides the package outputs ")
    assert "autodiff-jobs status" in ended.err


def test_directories_that_are_no_packages_hide_nothing(run_cli: Run, tmp_path: Path) -> None:
    for name in ALL:
        (tmp_path / name).mkdir()
    make_package(tmp_path / "conf", "function")
    ended = run_cli(*MLP, cwd=tmp_path, command=(sys.executable, "-m", "jobs.run"))
    assert ended.code == 0, ended.err
    assert ended.result.is_file()


def test_python_refuses_from_elsewhere_too(tmp_path: Path) -> None:
    package = make_package(tmp_path, "outputs")
    done = subprocess.run(
        [sys.executable, "-c", "import jobs"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {package} hides the package outputs ")


@pytest.mark.parametrize("path", [(), (".",)])
def test_the_console_script_works_among_them(
    run_cli: Run, crowded: Path, script: tuple[str, ...], path: tuple[str, ...], monkeypatch: Any
) -> None:
    # With PYTHONPATH=. the user asks for the directory, so only the program's packages are safe.
    if path:
        for name in ("torch", "numpy", "random", "hydra_plugins"):
            (crowded / name / "__init__.py").unlink()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*path, str(ROOT)]))
    # The commands of several processes find their packages as one does, and more.
    for number, options in enumerate((("devices=cpu:2",),) if path else ((), ("devices=cpu:2",))):
        ended = run_cli(*OWN, *options, f"runs=runs{number}", cwd=crowded, command=script)
        assert ended.code == 0, ended.err
        assert ended.result.is_relative_to(crowded)
        with open_result(ended.result) as result:
            np.testing.assert_allclose(result[...], np.diag(6 * np.arange(1.0, 6.0)))
    shown = run_cli("show", str(ended.result), cwd=crowded, command=script)
    assert "energy" in shown.out
    listed = run_cli("status", "--once", "runs0", cwd=crowded, command=script)
    assert "1 finished" in listed.out


@pytest.mark.parametrize(
    ("launcher", "module"),
    [
        (("cluster=joblib", "hydra.launcher.n_jobs=2"), "hydra_plugins.hydra_joblib_launcher"),
        (("hydra/launcher=submitit_local",), "hydra_plugins.hydra_submitit_launcher"),
    ],
    ids=["joblib", "submitit"],
)
def test_the_jobs_of_a_sweep_work_among_them(
    run_cli: Run,
    crowded: Path,
    launcher: tuple[str, ...],
    module: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(module)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    sweep = ("--multirun", *launcher, *OWN, "strategy=vectorize,reverse-loop")
    ended = run_cli(*sweep, cwd=crowded, command=(sys.executable, "-m", "autodiff_jobs"))
    assert ended.code == 0, ended.err
    assert len(list(crowded.glob("runs/*/result.h5"))) == 2


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("from outputs import mine", "./springs.py:energy"),
        ("import jobs.mine", "./springs.py:energy"),
        ("", "outputs.mine:energy"),
    ],
)
def test_a_function_that_needs_a_hidden_package_of_its_own(
    run_cli: Run, crowded: Path, script: tuple[str, ...], text: str, target: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (crowded / "springs.py").write_text(f"{text}\n{ENERGY}")
    ended = run_cli(*OWN, f"function.target={target}", cwd=crowded, command=script)
    assert ended.code == 1
    name = "jobs" if "jobs" in text else "outputs"
    assert f"{name} is a package of this program" in ended.err
    assert "rename yours" in ended.err
