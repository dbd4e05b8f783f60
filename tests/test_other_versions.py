"""What the continuous integration runs beside the suite matches pyproject.toml and the Makefile."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _lower_bounds() -> dict[str, str]:
    """The lower bound of each dependency that the fast tests need, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    test_tools = [
        requirement
        for requirement in project["optional-dependencies"]["test"]
        if requirement.startswith(("pytest>", "hypothesis>"))
    ]
    found = [re.match(r"([\w-]+)>=([\d.]+)", each) for each in project["dependencies"] + test_tools]
    assert all(found)
    return {match[1]: match[2] for match in found if match}


def _constraints(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    pairs = [line.split("==", 1) for line in lines if line and not line.startswith("#")]
    return dict(pairs)


def _padded(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))


def test_the_lowest_versions_are_the_lower_bounds_and_torch_is_that_of_the_suite() -> None:
    lowest, bounds = _constraints("constraints-lowest.txt"), _lower_bounds()
    assert lowest.pop("torch") == _constraints("constraints.txt")["torch"]
    del bounds["torch"]
    assert {name: _padded(version) for name, version in lowest.items()} == {
        name: _padded(version) for name, version in bounds.items()
    }


def test_the_fast_tests_exist() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    listed = re.search(r"^FAST := (.*)$", makefile, re.MULTILINE)
    assert listed
    paths = listed[1].split()
    assert len(paths) >= 8
    assert [path for path in paths if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("target", ["test", "test-lowest", "test-pythons"])
def test_the_continuous_integration_calls_every_target(target: str) -> None:
    assert re.search(rf"^make .*\b{target}\b", (ROOT / ".ci/run").read_text(), re.MULTILINE)
