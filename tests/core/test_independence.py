"""The core depends on torch and on none of the other packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import autodiff_core

PACKAGE = Path(autodiff_core.__file__).parent
SPARSE = sorted((PACKAGE / "sparse").rglob("*.py"))
MODULES = sorted(set(PACKAGE.rglob("*.py")) - set(SPARSE))
FOREIGN = ("hydra", "omegaconf", "h5py", "outputs", "jobs", "torch.autograd.functional")


def _imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_a_fresh_interpreter_loads_none_of_the_other_packages():
    script = (
        "import sys, torch; before = set(sys.modules); import autodiff_core; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    loaded = set(done.stdout.split())
    assert "autodiff_core" in loaded
    assert not loaded & {"hydra", "omegaconf", "h5py", "outputs", "jobs", "yaml", "rich"}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_modules_import_torch_the_standard_library_and_one_another(module):
    for name in _imported(module):
        root = name.split(".")[0]
        assert root in {"torch", "autodiff_core"} | sys.stdlib_module_names
        assert not name.startswith(FOREIGN)


@pytest.mark.parametrize("module", SPARSE, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_sparse_modules_may_import_the_extra_as_well(module):
    for name in _imported(module):
        root = name.split(".")[0]
        extra = {"numpy", "numba", "scipy"}
        assert root in {"torch", "autodiff_core"} | extra | sys.stdlib_module_names
        assert not name.startswith(FOREIGN)


# What torch offers under no public name: pytrees, modes of dispatch, wrappers of vmap and of
# functionalization, the switch of vmap's warnings, and kernels that are called without guards.
PRIVATE = {
    "tree.py",
    "recording.py",
    "nesting.py",
    "functionalization.py",
    "flat.py",
    "batched.py",
    "transformations.py",
    "torch_compiler.py",
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_few_modules_use_private_parts_of_torch(module):
    text = module.read_text()
    private = [
        name
        for name in _imported(module)
        if name.startswith("torch") and any(part.startswith("_") for part in name.split("."))
    ]
    uses_private = bool(private) or "torch._" in text
    assert uses_private == (module.name in PRIVATE)
    assert "torch.autograd.functional import" not in text


def test_the_public_names_are_those_of_all():
    assert all(hasattr(autodiff_core, name) for name in autodiff_core.__all__)
    assert list(autodiff_core.__all__) == sorted(autodiff_core.__all__)
