"""Inputs from files of atoms, which ASE reads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import JobError
from outputs import Result

pytest.importorskip("ase")
from ase.build import bulk, molecule
from ase.db import connect
from ase.io import write

Run = Callable[..., Result]
FUNCTIONS = """
import torch

def energy(positions, numbers):
    i, j = torch.triu_indices(len(positions), len(positions), offset=1)
    distances = (positions[i] - positions[j]).norm(dim=1)
    return (numbers[i] * numbers[j] * torch.exp(-distances)).sum()

def periodic(coordinates, cell, pbc, scale=2.0):
    return (coordinates**3).sum() * torch.det(cell) * (1 + pbc.sum()) * scale

def charged(positions, charges):
    return (positions.square().sum(1) * charges).sum()

def anything(*args):
    return args[0].square().sum()
"""
NAMES = ("H2O", "CH4", "H2")


@pytest.fixture(autouse=True)
def files(directory: Path) -> None:
    (directory / "own.py").write_text(FUNCTIONS)
    write("frames.extxyz", [molecule(name) for name in NAMES])
    write("copper.cif", bulk("Cu", cubic=True))
    write("POSCAR", bulk("Cu", cubic=True), format="vasp")
    database = connect("molecules.db")
    for name in NAMES:
        database.write(molecule(name))
    Path("broken.xyz").write_text("3\n\nH 0 0\n")


def options(name: str, path: str, *more: str) -> tuple[str, ...]:
    target = ("op=hessian", "function=python", f"function.target=./own.py:{name}")
    return (*target, "inputs=atoms", f"inputs.path={path}", *more)


def hessian(name: str) -> np.ndarray:
    space: dict[str, Callable[..., torch.Tensor]] = {}
    exec(FUNCTIONS, space)
    atoms = molecule(name)
    numbers = torch.from_numpy(atoms.numbers)
    positions = torch.from_numpy(atoms.positions)
    found = torch.func.hessian(space["energy"])(positions, numbers)
    return found.reshape(positions.numel(), -1).numpy()


@pytest.mark.parametrize("path", ["frames.extxyz", "molecules.db"])
def test_a_frame_is_a_point_and_all_frames_are_many(path: str, run_job: Run) -> None:
    result = run_job(*options("energy", path, "inputs.index=1"))
    np.testing.assert_allclose(result[:], hessian("CH4"), atol=1e-12)
    assert result.provenance["unit_positions"] == "angstrom"
    many = run_job(*options("energy", path, "points=leading"))
    assert many.provenance["unit_positions"] == "angstrom"
    for number, name in enumerate(NAMES):
        np.testing.assert_allclose(many.point(number)[:], hessian(name), atol=1e-12)
    last = run_job(*options("energy", path, "points=leading", "inputs.index='1:3'"))
    assert last.point_count == 2


def test_frames_of_one_molecule_are_stacked(run_job: Run) -> None:
    for number in range(3):
        atoms = molecule("H2O")
        atoms.positions *= 1 + number / 10
        write(f"water{number}.xyz", atoms)
    result = run_job(*options("energy", "water*.xyz", "points=files"))
    assert result.shape == (3, 9, 9)
    np.testing.assert_allclose(result[0], hessian("H2O"), atol=1e-6)


@pytest.mark.parametrize("path", ["copper.cif", "POSCAR"])
def test_crystals_under_the_names_of_the_arguments(path: str, run_job: Run) -> None:
    given = options("periodic", path, "inputs.names.coordinates=positions")
    result = run_job(*given)
    atoms = bulk("Cu", cubic=True)
    assert {spec.name for spec in result.columns} == {"coordinates", "cell"}
    wanted = 6 * atoms.positions * atoms.get_volume() * 4 * 2
    found = run_job(*given, "wrt.pattern=coordinates")
    np.testing.assert_allclose(found[:], np.diag(wanted.reshape(-1)), rtol=1e-6, atol=1e-9)
    block = result.block("coordinates", "coordinates").reshape(12, 12)
    np.testing.assert_allclose(block, found[:], rtol=1e-9, atol=1e-9)
    assert result.provenance["unit_coordinates"] == result.provenance["unit_cell"] == "angstrom"


@pytest.mark.parametrize(
    ("name", "path", "more", "message"),
    [
        ("energy", "frames.extxyz", [], "there are 3 frames; inputs.index=0 chooses one"),
        ("energy", "frames.extxyz", ["inputs.index=3"], "has 3 frames, 0 to 2"),
        (
            "energy",
            "frames.extxyz",
            ["points=leading", "inputs.index='5:9'"],
            "has 3 frames, 0 to 2",
        ),
        ("energy", "frames.extxyz", ["inputs.index=x"], "valid are a frame, such as 0 or -1"),
        ("energy", "frames.extxyz", ["inputs.slice=0"], "inputs.index=0 selects frames"),
        ("energy", "absent.xyz", [], "there is no such file"),
        ("energy", "absent*.xyz", ["points=files"], "points=files takes a pattern"),
        ("energy", "broken.xyz", [], "ASE cannot read this file .*1 atoms, expected 3"),
        ("energy", "own.py", [], "ASE cannot read this file"),
        ("charged", "POSCAR", [], "needs charges; atoms have .*positions, .*cell, pbc, masses"),
        ("energy", "POSCAR", ["inputs.names.positions=place"], "inputs.names.positions=place"),
        ("anything", "POSCAR", [], "inputs.names says what they are"),
    ],
)
def test_mistakes_are_one_message(
    name: str, path: str, more: list[str], message: str, run_job: Run
) -> None:
    with pytest.raises(JobError, match=message):
        run_job(*options(name, path, *more))


def test_a_missing_library_is_named(run_job: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ase.io", None)
    with pytest.raises(JobError, match=r"pip install autodiff-jobs\[atoms\]"):
        run_job(*options("energy", "frames.extxyz"))
