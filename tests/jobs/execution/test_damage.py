"""Damage beside the entries: no job resumes it, and no job takes its point from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from outputs import part_path, verify_result

SMALL = ("op=hessian", "strategy=vectorize", "function=rosenbrock", "function.n=12")
CHANGES: dict[str, Callable[[Any], Any]] = {
    "point": lambda file: file["point/x"].__setitem__(3, file["point/x"][3] * (1 + 2**-40)),
    "probe": lambda file: file["probes/right"].__setitem__(0, 0.5),
    "strategy": lambda file: file.attrs.modify("strategy", b"vectorise"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_damaged_part_is_reported_with_the_remedy(
    command_line: Callable[..., Any], directory: Path, name: str
) -> None:
    path = command_line(*SMALL).result
    part = part_path(path)
    path.rename(part)
    # The rest of a finished file may be resumed: nothing is missing.
    assert command_line(*SMALL).result == path
    path.rename(part)
    with h5py.File(part, "r+", libver=("earliest", "v108")) as file:
        CHANGES[name](file)
    damaged = part.read_bytes()
    refused = command_line(*SMALL)
    assert refused.code == 1
    (sentence,) = [line for line in refused.err.splitlines() if "damaged" in line]
    assert str(part) in sentence
    assert "Remove the file; the same command then computes it anew" in sentence
    assert "Traceback" not in refused.err
    assert not path.exists()
    assert part.read_bytes() == damaged
    part.unlink()
    assert verify_result(command_line(*SMALL).result).ok


def test_a_damaged_result_is_no_point(command_line: Callable[..., Any], directory: Path) -> None:
    path = command_line(*SMALL).result
    again = (*SMALL, "seed=3", "inputs=result", f"inputs.path={path}")
    assert command_line(*again).code == 0
    with h5py.File(path, "r+", libver=("earliest", "v108")) as file:
        CHANGES["point"](file)
    refused = command_line(*again, "seed=4")
    assert refused.code == 1
    assert "is damaged: the point, the tables or other records do not" in refused.err
