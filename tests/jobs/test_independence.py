"""Which package may import which, and where Hydra's types may appear."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KNOWS_DICTCONFIG = {
    "checks.py",
    "composition.py",
    "hydra_errors.py",
    "named_sources.py",
    "problem_options.py",
    "registry.py",
    "run.py",
    "schema.py",
    "sweeps.py",
}
# Lists the launchers that Hydra finds.
KNOWS_HYDRA = {"doctor.py", "colons.py", "sweep_mode.py"}


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, at its top or anywhere else."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("autodiff_core", {"outputs", "jobs", "hydra", "omegaconf", "h5py", "rich"}),
        ("outputs", {"autodiff_core", "jobs", "hydra", "omegaconf"}),
    ],
)
def test_packages_below_know_nothing_of_those_above(package: str, forbidden: set[str]) -> None:
    assert files(package)
    for path in files(package):
        assert not imports(path) & forbidden, path


def test_hydras_types_stay_where_the_configuration_is_read() -> None:
    for path in files("jobs"):
        names = {
            node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)
        }
        assert "DictConfig" not in names or path.name in KNOWS_DICTCONFIG, path
        if path.name not in KNOWS_DICTCONFIG | KNOWS_HYDRA:
            assert not imports(path) & {"hydra", "omegaconf"}, path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("jobs", "torch h5py numpy rich hydra omegaconf"),
        ("jobs.run", "torch h5py numpy rich"),
        ("autodiff_core", "outputs jobs hydra omegaconf h5py"),
        ("outputs", "torch autodiff_core jobs hydra omegaconf"),
    ],
)
def test_an_import_brings_nothing_that_it_need_not(
    module: str, absent: str, tmp_path: Path
) -> None:
    code = f"import sys, {module}; print(*set(sys.modules) & set('{absent}'.split()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
