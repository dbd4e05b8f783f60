"""An installed wheel contains its own configuration and needs no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Marks the configuration of the wheel, to distinguish it from that of the checkout.
MARK = "n: 7  # of the wheel\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel offline with the build backend."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; the extra `test` has it")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_packages_types_and_configuration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    conf = {f"jobs/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert len(conf) > 10
    assert conf <= names
    packages = ("autodiff_core", "outputs", "jobs")
    assert {f"{package}/py.typed" for package in packages} <= names
    sources = {str(p.relative_to(ROOT)) for name in packages for p in (ROOT / name).rglob("*.py")}
    assert sources <= names
    top = {name.partition("/")[0] for name in names}
    # The module of the console script has a name that a project of a user hardly has.
    assert top <= {
        *packages,
        "autodiff_jobs.py",
        *(name for name in top if name.endswith(".dist-info")),
    }


def test_it_runs_with_its_own_configuration(wheel: Path, tmp_path: Path) -> None:
    site, start = tmp_path / "site", tmp_path / "start"
    start.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    problem = site / "jobs/conf/function/rosenbrock.yaml"
    problem.write_text(problem.read_text().replace("n: 1000\n", MARK))
    done = subprocess.run(
        [sys.executable, "-m", "jobs.run", "function=rosenbrock", "--cfg", "job"],
        cwd=start,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "  'n': 7\n" in done.stdout
    assert list(start.iterdir()) == []
