"""Exports of Hessians by positions, read back by ASE and by the rules of phonopy's files."""

from __future__ import annotations

import itertools
import re
from typing import Any

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.vibrations.data import VibrationsData

from outputs import ResultWriter, Selection, TensorSpec
from outputs.export import main as export

CRYSTAL = Atoms(
    "NaClNaCl",
    positions=[[0, 0, 0], [2.8, 0, 0.1], [2.8, 2.8, 0], [0.2, 2.7, 0]],
    cell=[[5.6, 0, 0], [0.3, 5.6, 0], [0, 0, 2.8]],
    pbc=True,
)
COUNT = len(CRYSTAL)
SPEC = (TensorSpec("positions", (COUNT, 3), "float64"),)


# A decorator of ASE adds this function.
read_vibrations: Any = getattr(VibrationsData, "read")  # noqa: B009


@pytest.fixture
def hessian():
    matrix = np.random.default_rng(0).standard_normal((3 * COUNT, 3 * COUNT))
    return matrix + matrix.T


@pytest.fixture
def stored(describe, tmp_path, hessian):
    def store(of_rows=None, of_columns=None, species=False, **changes):
        every = range(COUNT)
        chosen = [
            np.add.outer(3 * np.array(atoms or every), np.arange(3)).reshape(-1)
            for atoms in (of_rows, of_columns)
        ]
        matrix = hessian[np.ix_(*chosen)]
        point = {"positions": CRYSTAL.positions}
        if species:
            point |= {
                "numbers": CRYSTAL.numbers,
                "cell": np.array(CRYSTAL.cell),
                "pbc": np.array(CRYSTAL.pbc),
            }
        fields = {"operation": "hessian", "rows": SPEC, "columns": SPEC, "point": point}
        if of_rows or of_columns:
            parts = [(TensorSpec("positions", (len(each),), "float64"),) for each in chosen]
            fields |= {
                "rows": parts[0],
                "columns": parts[1],
                "selection": Selection(chosen[0], chosen[1], SPEC, SPEC),
            }
        with ResultWriter.create(
            tmp_path / "r.h5", describe(matrix.shape, **(fields | changes))
        ) as writer:
            writer.write(0, len(matrix), matrix)
            writer.finish({"seconds": 1.0})
        return str(tmp_path / "r.h5")

    return store


@pytest.fixture
def poscar(tmp_path):
    ase.io.write(tmp_path / "POSCAR", CRYSTAL, format="vasp")
    return str(tmp_path / "POSCAR")


@pytest.mark.parametrize("species", [True, False])
def test_ase_reads_the_atoms_and_the_hessian(stored, hessian, tmp_path, poscar, capsys, species):
    given = [] if species else ["--atoms", poscar]
    assert export([stored(species=species), "--to", "ase", *given]) == 0
    assert "taken to be in eV/angstrom^2" in capsys.readouterr().err
    found = read_vibrations(str(tmp_path / "r.vibrations.json"))
    np.testing.assert_array_equal(found.get_hessian_2d(), hessian)
    atoms = found.get_atoms()
    assert atoms.get_chemical_formula() == CRYSTAL.get_chemical_formula()
    np.testing.assert_allclose(atoms.positions, CRYSTAL.positions)
    np.testing.assert_allclose(atoms.cell, CRYSTAL.cell)
    assert atoms.pbc.all()
    expected = VibrationsData.from_2d(CRYSTAL, hessian)
    np.testing.assert_allclose(found.get_energies(), expected.get_energies())


def test_ase_gets_the_hessian_of_some_atoms(stored, hessian, tmp_path):
    assert export([stored([1, 3], [1, 3], species=True), "--to", "ase"]) == 0
    found = read_vibrations(str(tmp_path / "r.vibrations.json"))
    assert found.get_indices().tolist() == [1, 3]
    np.testing.assert_array_equal(
        found.get_hessian(), hessian.reshape(COUNT, 3, COUNT, 3)[[1, 3]][:, :, [1, 3]]
    )


@pytest.mark.parametrize("rows", [None, [0, 2]])
def test_force_constants_are_in_the_order_of_phonopy(stored, hessian, tmp_path, rows):
    path = stored(rows, species=True)
    chosen = rows or list(range(COUNT))
    expected = hessian.reshape(COUNT, 3, COUNT, 3).transpose(0, 2, 1, 3)[chosen]
    assert export([path, "--to", "phonopy"]) == 0
    lines = (tmp_path / "r.FORCE_CONSTANTS").read_text().splitlines()
    assert lines[0].split() == [str(len(chosen)), str(COUNT)]
    for number, (row, column) in enumerate(itertools.product(range(len(chosen)), range(COUNT))):
        head, *block = lines[1 + 4 * number : 5 + 4 * number]
        assert head.split() == [str(chosen[row] + 1), str(column + 1)]
        values = [[float(word) for word in line.split()] for line in block]
        np.testing.assert_array_equal(values, expected[row, column])
    assert export([path, "--to", "phonopy-hdf5", "--units", "hartree/bohr^2"]) == 0
    with h5py.File(tmp_path / "r.force_constants.hdf5") as opened:
        file: Any = opened
        # One hartree/bohr² is 97.1736 eV/Å².
        np.testing.assert_allclose(file["force_constants"][:], expected * 97.17362, rtol=1e-7)
        assert file["p2s_map"][:].tolist() == chosen
        assert file["physical_unit"][0] == b"eV/angstrom^2"


def test_the_unit_of_the_positions_is_that_of_their_file(stored, hessian, tmp_path, capsys):
    path = stored(species=True, provenance={"unit_positions": "angstrom", "created": "now"})
    assert export([path, "--to", "phonopy-hdf5", "--units", "hartree/bohr^2"]) == 1
    assert re.search(
        "are in angstrom, .*valid are eV/angstrom.2 and hartree/angstrom.2", capsys.readouterr().err
    )
    assert export([path, "--to", "phonopy-hdf5", "--units", "hartree/angstrom^2"]) == 0
    assert "energy is taken to be in hartree (--units)" in capsys.readouterr().err
    with h5py.File(tmp_path / "r.force_constants.hdf5") as opened:
        file: Any = opened
        found = file["force_constants"][:].transpose(0, 2, 1, 3).reshape(hessian.shape)
    np.testing.assert_allclose(found, hessian * 27.211386245988, rtol=1e-12)
    assert export([path, "--to", "ase"]) == 0
    assert "in angstrom, and the energy is taken to be in eV" in capsys.readouterr().err
    atoms = read_vibrations(str(tmp_path / "r.vibrations.json")).get_atoms()
    np.testing.assert_allclose(atoms.positions, CRYSTAL.positions)


REFUSALS = {
    "no Hessian": ({"operation": "jacobian"}, "phonopy", "it is of op=jacobian"),
    "no atoms": (
        {"rows": (TensorSpec("x", (12,), "float64"),), "columns": SPEC},
        "ase",
        r"its variable x has the shape \(12,\)",
    ),
    "no species": ({}, "ase", "needs the species of the atoms.*--atoms"),
    "some columns": ({"columns_": [0]}, "phonopy", "needs the columns of all atoms"),
    "other atoms": ({"columns_": [0]}, "ase", "rows and the columns of the same atoms"),
    "no cell": (
        {"point": {"positions": CRYSTAL.positions, "numbers": CRYSTAL.numbers}},
        "phonopy-yaml",
        "needs a periodic cell",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_is_refused(stored, tmp_path, capsys, case):
    changes, to, message = REFUSALS[case]
    changes = dict(changes)
    path = stored(None, changes.pop("columns_", None), **changes)
    assert export([path, "--to", to]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(message, printed.err)
    assert [each.name for each in tmp_path.iterdir()] == ["r.h5"]


@pytest.mark.parametrize("shift", [0.5, None])
def test_atoms_of_another_structure_are_refused(stored, tmp_path, capsys, shift):
    other = CRYSTAL.copy() if shift else CRYSTAL[:3]
    other.positions[0] += shift or 0
    ase.io.write(tmp_path / "other.xyz", other)
    command = [stored(), "--to", "ase", "--atoms", str(tmp_path / "other.xyz")]
    assert export(command) == 1
    message = "differ from those of .* by up to 0.5" if shift else "has 3 atoms, and .* 4 positions"
    assert re.search(message, capsys.readouterr().err)
