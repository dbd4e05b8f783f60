"""The file of a call is that of the command, except for what says where it comes from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import jobs
from jobs.planning import search
from jobs.planning.thresholds import THRESHOLDS
from outputs import Result

SOURCE = """
import torch

SCALE = 2.0

def energy(positions):
    bonds = positions[1:] - positions[:-1]
    return SCALE * ((bonds.norm(dim=1) - 1) ** 2).sum()

def network():
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
"""
# What says where a result comes from: the origin, the names, and what hashes or times them.
ORIGIN = (
    "provenance",
    "configuration",
    "execution",
    "digests",
    "fingerprint",
    "function",
    "ledger",
)
# What follows from the fingerprint: the random vectors of the check.
OF_THE_FINGERPRINT = ("probes",)


def content(path: Path, but: tuple[str, ...]) -> dict[str, bytes]:
    """Return all datasets and attributes of a file as bytes, but for those with some names."""
    found: dict[str, bytes] = {}

    def add(name: str, item: Any) -> None:
        for key, value in item.attrs.items():
            if key not in ("REFERENCE_LIST", "DIMENSION_LIST"):
                found[f"{name}@{key}"] = np.asarray(value).astype(bytes).tobytes()
        if isinstance(item, h5py.Dataset):
            plain = item[()]
            found[name] = np.asarray(plain).tobytes() + str(item.dtype).encode()

    with h5py.File(path) as file:
        add("", file)
        file.visititems(add)
    return {
        name: value
        for name, value in found.items()
        if not any(part in but for part in name.replace("@", "/").split("/"))
    }


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
def test_a_function_gives_the_file_of_the_command(
    strategy: str, command_line: Any, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether a program is recorded depends on times, and rounding on that.
    monkeypatch.setattr(
        search, "THRESHOLDS", replace(THRESHOLDS, share_to_record=0.0, seconds_to_record_anyway=0.0)
    )
    (directory / "springs.py").write_text(SOURCE)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(SOURCE, names)
    point = np.random.default_rng(0).standard_normal((9, 3))
    np.save("x.npy", point)
    by_command = command_line(
        *("op=hessian", f"strategy={strategy}", "chunk_size=8", "progress=quiet"),
        *("function=python", "function.target=./springs.py:energy"),
        *("inputs=numpy", "inputs.path=x.npy"),
    ).result
    options: Any = {"strategy": strategy, "chunk_size": 8, "progress": "quiet"}
    jobs.compute("hessian", names["energy"], point, **options).close()
    (by_call,) = set(directory.glob("runs/*/result.h5")) - {by_command}
    _assert_same(by_command, by_call, (*ORIGIN, *OF_THE_FINGERPRINT))
    # By its import path the function has the fingerprint of the command.
    jobs.compute("hessian", "./springs.py:energy", point, runs="others", **options).close()
    (by_path,) = directory.glob("others/*/result.h5")
    _assert_same(by_command, by_path, ORIGIN)


def test_a_module_gives_the_file_of_the_command(command_line: Any, directory: Path) -> None:
    (directory / "springs.py").write_text(SOURCE)
    point = np.random.default_rng(0).standard_normal((4, 3))
    np.save("x.npy", point)
    by_command = command_line(
        *("op=jacobian", "strategy=vectorize", "chunk_size=4", "progress=quiet", "wrt=params"),
        *("function=python", "function.target=./springs.py:network", "function.factory=true"),
        *("inputs=numpy", "inputs.path=x.npy", "seed=3"),
    ).result
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).eval()
    options: Any = {"chunk_size": 4, "progress": "quiet", "wrt": "params", "seed": 3}
    jobs.compute("jacobian", module, point, strategy="vectorize", **options).close()
    (by_call,) = set(directory.glob("runs/*/result.h5")) - {by_command}
    _assert_same(by_command, by_call, (*ORIGIN, *OF_THE_FINGERPRINT))


def _assert_same(one: Path, other: Path, but: tuple[str, ...]) -> None:
    first, second = content(one, but), content(other, but)
    assert {*first} == {*second}
    assert [name for name in first if first[name] != second[name]] == []
    assert {"hessian", "jacobian"} & {*first}
    assert any(name.startswith("point/") for name in first)


def test_a_right_hessian_by_columns_is_not_contradicted_where_one_entry_hides_the_others() -> None:
    def energy(x: torch.Tensor) -> torch.Tensor:
        return (500 * x[0].sin() * x.cos().sum()) ** 2 + (x @ x).exp() * 1e-6

    point = torch.linspace(0, 0.1, 20, dtype=torch.float64)
    options: Any = {"strategy": "forward-mode", "verify": "sample", "progress": "quiet"}
    with pytest.warns(UserWarning, match="finite differences of the function agree"):
        result = jobs.compute("hessian", energy, point, **options)
    assert isinstance(result, Result)
    with result:
        expected = torch.autograd.functional.hessian(energy, point)
        torch.testing.assert_close(torch.as_tensor(result[:, :]), expected)
