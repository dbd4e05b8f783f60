"""Export force constants with their cell as a YAML file that ``phonopy.load`` reads."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from outputs._errors import ResultError
from outputs._exports.phonopy_text import force_constants, require_all_columns
from outputs._exports.structures import Structure, column_atoms, row_atoms
from outputs._reading.result import Result
from outputs._scanning.sequential import Advance

_SYMBOLS = re.findall(
    "[A-Z][a-z]?",
    "XHHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTcRuRhPdAg"
    "CdInSnSbTeIXeCsBaLaCePrNdPmSmEuGdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPbBiPoAtRnFrRaAcTh"
    "PaUNpPuAmCmBkCfEsFmMdNoLrRfDbSgBhHsMtDsRgCnNhFlMcLvTsOg",
)


def write(result: Result, path: Path, advance: Advance, structure: Structure) -> None:
    """Write the cell of the result as unit cell, and as a supercell of one, with force constants.

    Args:
        result: A Hessian by positions, of whole columns.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
        structure: The atoms and the units.
    """
    require_all_columns(result, "phonopy-yaml")
    atoms = structure.atoms(result, "phonopy-yaml")
    if not abs(np.linalg.det(atoms.cell)) > 0 or not atoms.periodic.all():
        raise ResultError(f"phonopy-yaml needs a periodic cell, which {result.path} has not.")
    fractional = np.linalg.solve(atoms.cell.T, atoms.positions.T).T
    rows, columns = row_atoms(result), column_atoms(result)
    kind = "full" if len(rows) == len(columns) else "compact"
    with open(path, "x", encoding="ascii") as file:
        file.write("physical_unit:\n  length: angstrom\n  force_constants: eV/angstrom^2\n\n")
        file.write("supercell_matrix:\n- [1, 0, 0]\n- [0, 1, 0]\n- [0, 0, 1]\n\n")
        for name in ("unit_cell", "supercell"):
            file.write(f"{name}:\n  lattice:\n")
            file.writelines(f"  - {_list(vector)}\n" for vector in atoms.cell)
            file.write("  points:\n")
            for number, place in zip(atoms.numbers, fractional, strict=True):
                file.write(f"  - symbol: {_SYMBOLS[number]}\n    coordinates: {_list(place)}\n")
            file.write("\n")
        file.write(f"force_constants:\n  format: {kind}\n  shape: [{len(rows)}, {len(columns)}]\n")
        file.write("  elements:\n")
        for row, constants in force_constants(result, structure):
            for column, block in enumerate(constants):
                file.write(f"  - # ({row + 1}, {column + 1})\n")
                file.writelines(f"    - {_list(line)}\n" for line in block)
            advance(constants.nbytes)


def _list(values: np.ndarray) -> str:
    return f"[{', '.join(f'{value:.17e}' for value in values)}]"
