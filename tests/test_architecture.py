"""The structure that docs/design.md describes, computed from the source."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("jobs", "autodiff_core", "outputs")
# The folders of each package, from top to bottom: a folder imports from those below it only.
# Modules at the top of a package have no level; the tests of circles hold for them.
ORDER = {
    "jobs": [
        "calls",
        "execution",
        "reporting",
        "planning",
        "sparsity",
        "verification",
        "records",
        "streams",
        "functions",
        "sources",
        "problems",
        "machine",
        "configuration",
    ],
    "autodiff_core": [
        "sparse",
        "_curvature",
        "_linearization",
        "_engines",
        "_programs",
        "_tensors",
    ],
    "outputs": [
        "_sharding",
        "_exports",
        "_verification",
        "_writing",
        "_reading",
        "_analysis",
        "_scanning",
        "_format",
        "_storage",
    ],
}
# What a package may import beside the standard library and itself, extras included.
ALLOWED = {
    "autodiff_core": {"torch"},
    "autodiff_core/sparse": {"torch", "numpy", "numba", "scipy"},
    "outputs": {"h5py", "numpy", "isal", "rich"}
    | {"torch", "scipy", "xarray", "dask", "zarr", "h5netcdf", "matplotlib"},
    "jobs": {"autodiff_core", "outputs", "torch", "h5py", "numpy", "safetensors", "cloudpickle"}
    | {"hydra", "omegaconf", "yaml", "rich"}
    | {"scipy", "matplotlib", "pyarrow", "ase", "pandas", "submitit", "hydra_plugins", "IPython"},
}
# Public names, which an __init__.py gives; the source of the built-in problems is part of the
# fingerprint of their results, so it stays as it is.
PUBLIC_FOLDERS = {"autodiff_core/sparse", "jobs/problems"}
MOST_LINES = 400


def _source(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for package in PACKAGES for path in _source(package)}


def _imported(path: Path) -> Iterator[str]:
    """Yield the names that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def _module_graph() -> dict[str, set[str]]:
    return {
        name: {each for each in _imported(path) if each in MODULES} - {name}
        for name, path in MODULES.items()
    }


def _place(module: str) -> str:
    """Return the folder of a module; a module beside further folders stands for itself."""
    path = MODULES[module]
    beside_folders = any(other.parent.parent == path.parent for other in MODULES.values())
    return str((path if beside_folders else path.parent).relative_to(ROOT))


def _level(module: str) -> int | None:
    """Return how far down its package the folder of a module stands, None outside of folders."""
    package, *inner = module.split(".")
    return ORDER[package].index(inner[0]) if len(inner) > 1 or _is_folder(module) else None


def _is_folder(module: str) -> bool:
    return MODULES[module].name == "__init__.py" and "." in module


def _place_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for module, imported in _module_graph().items():
        own = _place(module)
        graph.setdefault(own, set()).update({_place(each) for each in imported} - {own})
    return graph


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the largest sets of nodes that reach one another."""
    reached = {node: _reached_from(node, graph) for node in graph}
    groups = {
        tuple(sorted({other for other in reached[node] if node in reached[other]}))
        for node in graph
        if node in reached[node]
    }
    return [list(group) for group in sorted(groups)]


def _reached_from(node: str, graph: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(graph[node])
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting += graph[each]
    return reached


def _folders(package: str) -> set[str]:
    return {
        str(path.parent.relative_to(ROOT))
        for path in _source(package)
        if path.parent != ROOT / package
    }


def _tracked(suffix: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", f"*{suffix}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_one_module_knows_cuda() -> None:
    folders = ("jobs", "autodiff_core", "benchmarks", "outputs")
    named = [
        path for folder in folders for path in _source(folder) if "torch.cuda" in path.read_text()
    ]
    assert named == [ROOT / "jobs/machine/accelerator.py"]


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert _circles(graph) == [["b", "c"]]
    assert _circles({"a": {"b"}, "b": set()}) == []


def test_modules_import_one_another_in_no_circle() -> None:
    assert _circles(_module_graph()) == []


def test_folders_import_one_another_in_no_circle() -> None:
    assert _circles(_place_graph()) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_has_its_place_in_the_order(package: str) -> None:
    folders = {folder.split("/")[1] for folder in _folders(package)}
    assert sorted(ORDER[package]) == sorted(folders)


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_import_from_below_only(package: str) -> None:
    upwards = []
    for module, imported in _module_graph().items():
        own = _level(module)
        for other in sorted(imported):
            level = _level(other)
            if module.split(".")[0] != package or other.split(".")[0] != package:
                continue
            if own is not None and level is not None and level < own:
                upwards.append(f"{module} -> {other}")
    assert upwards == []


def _foreign(paths: Iterable[Path], allowed: set[str]) -> list[str]:
    """Return the imports, as "file: package", of what is not allowed."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in paths
        for name in sorted({each.partition(".")[0] for each in _imported(path)})
        if name not in allowed and name not in sys.stdlib_module_names
    ]


@pytest.mark.parametrize("place", ALLOWED)
def test_packages_import_what_they_may(place: str) -> None:
    package = place.partition("/")[0]
    exceptions = [each for each in ALLOWED if each.startswith(f"{place}/")]
    paths = [
        path
        for path in _source(place)
        if not any(path.is_relative_to(ROOT / each) for each in exceptions)
    ]
    assert paths
    assert _foreign(paths, ALLOWED[place] | {package}) == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="lists the files that git tracks")
def test_files_are_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in _tracked(".py")}
    assert lengths
    long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n >= MOST_LINES}
    assert long == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_init_of_a_folder_is_one_docstring(package: str) -> None:
    for folder in sorted(_folders(package) - PUBLIC_FOLDERS):
        body = ast.parse((ROOT / folder / "__init__.py").read_text()).body
        assert len(body) == 1, folder
        assert isinstance(body[0], ast.Expr), folder
        assert isinstance(body[0].value, ast.Constant), folder


def _tree_of_the_page() -> list[str]:
    """Return the folders that the tree in docs/design.md names, as paths from the root."""
    page = (ROOT / "docs/design.md").read_text()
    (tree,) = re.findall(r"^```text\n(jobs/.*?)^```", page, re.MULTILINE | re.DOTALL)
    found: list[str] = []
    parents: list[str] = []
    for indent, folder in re.findall(r"^( *)(\w+)/", tree, re.MULTILINE):
        parents = [*parents[: len(indent) // 2], folder]
        found.append("/".join(parents))
    return found


def test_the_tree_in_the_documentation_names_the_folders_that_exist() -> None:
    folders = set(PACKAGES).union(*map(_folders, PACKAGES))
    assert sorted(_tree_of_the_page()) == sorted(folders)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tree_in_the_documentation_is_in_the_order_of_imports(package: str) -> None:
    split = [folder.split("/") for folder in _tree_of_the_page()]
    assert [parts[1] for parts in split if parts[0] == package and len(parts) == 2] == ORDER[
        package
    ]


def _functions_of_the_page() -> list[tuple[str, str]]:
    """Return what docs/design.md names as `module: function`, the function with its class."""
    page = (ROOT / "docs/design.md").read_text()
    return re.findall(r"`([\w/]+\.py): ([\w.]+)`", page)


def _defined(path: Path) -> set[str]:
    """Return the names of the functions and classes of a file, methods with their class."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            found |= {f"{node.name}.{each.name}" for each in methods}
    return found


def test_the_functions_in_the_documentation_exist() -> None:
    named = _functions_of_the_page()
    assert len(named) >= 20
    modules = {path for path, _ in named}
    assert [path for path in sorted(modules) if not (ROOT / path).is_file()] == []
    assert [f"{path}: {name}" for path, name in named if name not in _defined(ROOT / path)] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md"])
def test_the_files_in_the_documentation_exist(page: str) -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.\w+)`", (ROOT / page).read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []
