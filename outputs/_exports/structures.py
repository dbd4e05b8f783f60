"""The atoms of a Hessian by positions: their places in the matrix, species, cell and units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import TensorSpec
from outputs._format.description import FULL
from outputs._optional import load
from outputs._reading.result import Result

# CODATA 2018: electronvolts of a hartree, ångströms of a bohr.
_HARTREE, _BOHR = 27.211386245988, 0.529177210903
UNITS = {
    "eV/angstrom^2": (1.0, 1.0),
    "hartree/bohr^2": (_HARTREE / _BOHR**2, _BOHR),
    "hartree/angstrom^2": (_HARTREE, 1.0),
}
"""The factors that turn a Hessian into eV/Å² and positions into Å."""
_NUMBERS, _CELL, _PERIODIC = ("numbers", "atomic_numbers"), ("cell", "lattice"), ("pbc",)
# So far positions of a file of text may be from those of the point, in Å.
_CLOSE = 1e-4


@dataclass(frozen=True)
class Structure:
    """Where the species and the cell of a result come from, and the units of its Hessian.

    Attributes:
        path: A file that ASE reads; None where the point of the result has them.
        units: One of `UNITS`.
    """

    path: Path | None = None
    units: str = "eV/angstrom^2"

    def require_units_of(self, result: Result) -> None:
        """Check that the positions have the unit that their source has, where it is known.

        Raises:
            ResultError: They have another one.
        """
        unit = _unit_of_positions(result)
        if unit is not None and not self.units.endswith(f"/{unit}^2"):
            fitting = " and ".join(each for each in UNITS if each.endswith(f"/{unit}^2"))
            raise ResultError(
                f"--units {self.units}: the positions of {result.path} are in {unit}, as its "
                f"provenance says; valid are {fitting}."
            )

    def assumption(self, result: Result) -> str:
        """Return what is taken to be so, as a sentence."""
        unit = _unit_of_positions(result)
        if unit is None:
            return f"the Hessian is taken to be in {self.units} (--units)"
        energy = self.units.partition("/")[0]
        return f"the positions are in {unit}, and the energy is taken to be in {energy} (--units)"

    @property
    def factor(self) -> float:
        """What turns the Hessian into eV/Å²."""
        return UNITS[self.units][0]

    def atoms(self, result: Result, what: str) -> Atoms:
        """Return the species, positions and cell.

        Args:
            result: A Hessian by positions.
            what: What needs them, as the subject of a sentence.

        Raises:
            ResultError: If they are not known, or do not belong to the positions of the point.
        """
        name = _whole(result)[0].name
        positions = np.asarray(result.points[name], float) * UNITS[self.units][1]
        if self.path is not None:
            return _read(self.path, positions, result)
        points = result.points
        numbers, cell, periodic = (
            next((points[key] for key in keys if key in points), None)
            for keys in (_NUMBERS, _CELL, _PERIODIC)
        )
        if numbers is None or np.shape(numbers) != (len(positions),):
            raise ResultError(
                f"{what} needs the species of the atoms, which are not in the point of "
                f"{result.path}: name a file with --atoms, which ASE reads (POSCAR, xyz, cif)."
            )
        has_cell = cell is not None and np.shape(cell) == (3, 3)
        box = np.asarray(cell, float) * UNITS[self.units][1] if has_cell else np.zeros((3, 3))
        given = periodic is not None and np.shape(periodic) == (3,)
        pbc = np.asarray(periodic, bool) if given else np.full(3, has_cell)
        return Atoms(np.asarray(numbers, np.int64), positions, box, pbc)


@dataclass(frozen=True)
class Atoms:
    """A structure.

    Attributes:
        numbers: Atomic numbers, int64 of shape (atoms,).
        positions: In Å, float64 of shape (atoms, 3).
        cell: Its vectors as rows, in Å, float64 of shape (3, 3); zeros without a cell.
        periodic: Along which of them it repeats, bool of shape (3,).
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    periodic: np.ndarray


def row_atoms(result: Result) -> np.ndarray:
    """Return the numbers of the atoms of the rows, int64 of shape (atoms,)."""
    return result.row_numbers[::3] // 3


def column_atoms(result: Result) -> np.ndarray:
    """Return the numbers of the atoms of the columns."""
    return result.column_numbers[::3] // 3


def require_atoms(result: Result, name: str) -> None:
    """Check that a result is a Hessian by the positions of atoms.

    Args:
        result: The result.
        name: The format that needs one.

    Raises:
        ResultError: If it is not, with the reason.
    """
    rows, columns = _whole(result)
    reason = ""
    if result.operation != "hessian":
        reason = f"it is of op={result.operation}"
    elif result.structure != FULL:
        reason = "it is the diagonal only"
    elif result.dtype.kind != "f":
        reason = f"its numbers are {result.dtype}"
    elif len(result.rows) != 1 or len(result.columns) != 1:
        reason = f"it is by {len(result.rows)} tensors"
    elif rows.shape != columns.shape or len(rows.shape) != 2 or rows.shape[1] != 3:
        reason = f"its variable {rows.name} has the shape {rows.shape}"
    elif not all(map(_is_of_whole_atoms, (result.row_numbers, result.column_numbers))):
        reason = "single coordinates of atoms were selected"
    if reason:
        raise ResultError(
            f"{name} holds a Hessian by the positions of atoms, of shape (atoms, 3): {reason}."
        )


def _is_of_whole_atoms(numbers: np.ndarray) -> bool:
    if len(numbers) % 3:
        return False
    atoms = numbers.reshape(-1, 3)
    return bool((atoms == atoms[:, :1] // 3 * 3 + np.arange(3)).all())


def _unit_of_positions(result: Result) -> str | None:
    """Return the unit of the file that the positions were read from; None if it is not known."""
    unit = result.provenance.get(f"unit_{_whole(result)[0].name}")
    return None if unit is None else str(unit)


def _whole(result: Result) -> tuple[TensorSpec, TensorSpec]:
    if result.selection is None:
        return result.rows[0], result.columns[0]
    return result.selection.whole_rows[0], result.selection.whole_columns[0]


def _read(path: Path, positions: np.ndarray, result: Result) -> Atoms:
    io = load("ase.io", "examples", "--atoms")
    if not path.is_file():
        raise ResultError(f"There is no file {path}.")
    try:
        found = io.read(path)
    except Exception as error:
        raise ResultError(f"ASE cannot read {path} ({error}).") from error
    if len(found) != len(positions):
        raise ResultError(
            f"{path} has {len(found)} atoms, and {result.path} {len(positions)} positions."
        )
    distance = float(np.abs(found.positions - positions).max())
    if not distance <= _CLOSE:
        raise ResultError(
            f"The positions in {path} differ from those of {result.path} by up to {distance:.3g} "
            "Å: it is another structure, or --units is another."
        )
    return Atoms(found.numbers.astype(np.int64), positions, np.array(found.cell), found.pbc)
