"""phonopy reads exported force constants: `make test-ecosystem` runs this."""

# pyright: reportMissingImports=false
from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from outputs import ResultDescription, ResultWriter, TensorSpec
from outputs._format.axes import Axis
from outputs.export import main as export

pytestmark = pytest.mark.skipif(
    "AUTODIFF_JOBS_ECOSYSTEM" not in os.environ, reason="make test-ecosystem runs it"
)

# A chain along x of two masses in a cell of 4 Å, and springs of 7 and 3 eV/Å² between neighbours.
CELL = np.diag([4.0, 6.0, 6.0])
REPEATS, STIFF, SOFT = 6, 7.0, 3.0
NUMBERS = np.tile([11, 17], REPEATS)
POSITIONS = np.array(
    [[4.0 * cell + place, 0, 0] for cell in range(REPEATS) for place in (0.0, 1.8)]
)


def hessian() -> np.ndarray:
    count = len(NUMBERS)
    matrix = np.zeros((count, 3, count, 3))
    for atom in range(count):
        other, spring = (atom + 1) % count, STIFF if atom % 2 == 0 else SOFT
        for axis, share in enumerate((1.0, 0.2, 0.2)):
            for one, two in ((atom, other), (other, atom)):
                matrix[one, axis, one, axis] += share * spring
                matrix[one, axis, two, axis] -= share * spring
    return matrix.reshape(3 * count, 3 * count)


@pytest.fixture
def path(tmp_path):
    matrix = hessian()
    spec = (TensorSpec("positions", POSITIONS.shape, "float64"),)
    fields: dict[str, Any] = {"rows_are_tuple": False, "columns_are_tuple": False}
    description = ResultDescription(
        operation="hessian",
        strategy="vectorize",
        function="chain",
        fingerprint="0" * 16,
        axis=Axis.ROWS,
        rows=spec,
        columns=spec,
        dtype="float64",
        point={
            "positions": POSITIONS,
            "numbers": NUMBERS,
            "cell": CELL * [[REPEATS], [1], [1]],
            "pbc": np.ones(3, bool),
        },
        value={},
        vectors={},
        configuration="",
        provenance={},
        **fields,
    )
    with ResultWriter.create(tmp_path / "r.h5", description) as writer:
        writer.write(0, len(matrix), matrix)
        writer.finish({"seconds": 1.0})
    return tmp_path / "r.h5"


def test_force_constants_are_read(path):
    phonopy = pytest.importorskip("phonopy")
    from phonopy.file_IO import parse_FORCE_CONSTANTS, read_force_constants_hdf5

    count = len(NUMBERS)
    expected = hessian().reshape(count, 3, count, 3).transpose(0, 2, 1, 3)
    for to in ("phonopy", "phonopy-hdf5", "phonopy-yaml"):
        assert export([str(path), "--to", to]) == 0
    text = parse_FORCE_CONSTANTS(str(path.with_suffix(".FORCE_CONSTANTS")))
    np.testing.assert_array_equal(text, expected)
    binary, unit = read_force_constants_hdf5(
        str(path.with_suffix(".force_constants.hdf5")), return_physical_unit=True
    )
    np.testing.assert_array_equal(binary, expected)
    assert unit == "eV/angstrom^2"
    whole = phonopy.load(
        path.with_suffix(".phonopy.yaml"), primitive_matrix="P", symmetrize_fc=False, log_level=0
    )
    np.testing.assert_allclose(whole.force_constants, expected, atol=1e-14)


def test_frequencies_are_those_of_the_chain(path):
    """The dispersion of a diatomic chain has a closed form."""
    phonopy = pytest.importorskip("phonopy")
    from phonopy.file_IO import parse_FORCE_CONSTANTS
    from phonopy.structure.atoms import PhonopyAtoms

    assert export([str(path), "--to", "phonopy"]) == 0
    supercell = PhonopyAtoms(
        numbers=NUMBERS, cell=CELL * [[REPEATS], [1], [1]], positions=POSITIONS
    )
    chain = phonopy.Phonopy(
        supercell,
        supercell_matrix=np.eye(3, dtype=int),
        primitive_matrix=np.diag([1 / REPEATS, 1, 1]),
        log_level=0,
    )
    chain.force_constants = parse_FORCE_CONSTANTS(str(path.with_suffix(".FORCE_CONSTANTS")))
    masses = supercell.masses
    # Square roots of eV/Å²/u in THz.
    to_thz = np.sqrt(1.602176634e-19 * 1e20 / 1.66053906660e-27) / (2 * np.pi) / 1e12
    for share in (0.0, 1 / 6, 0.5):
        found = np.sort(chain.run_qpoints([[share, 0, 0]]).frequencies[0] ** 2)
        squares = []
        for weight in (1.0, 0.2, 0.2):
            total = weight * (STIFF + SOFT) * (1 / masses[0] + 1 / masses[1])
            rest = 4 * weight**2 * STIFF * SOFT * np.sin(np.pi * share) ** 2
            root = np.sqrt(total**2 / 4 - rest / masses[0] / masses[1])
            squares += [total / 2 - root, total / 2 + root]
        np.testing.assert_allclose(found, np.sort(squares) * to_thz**2, rtol=1e-5, atol=1e-6)
