"""Export force constants as phonopy's text file FORCE_CONSTANTS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from outputs._errors import ResultError
from outputs._exports.structures import Structure, column_atoms, row_atoms
from outputs._reading.result import Result
from outputs._scanning.sequential import Advance


def write(result: Result, path: Path, advance: Advance, structure: Structure) -> None:
    """Write the force constants in eV/Å², by pairs of atoms, which count from 1.

    Of a part with the rows of some atoms, those of a primitive cell for example, it is phonopy's
    compact form.

    Args:
        result: A Hessian by positions, of whole columns.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
        structure: The units.
    """
    require_all_columns(result, "phonopy")
    with open(path, "x", encoding="ascii") as file:
        rows, columns = row_atoms(result), column_atoms(result)
        file.write(f"{len(rows):4d} {len(columns):4d}\n")
        for row, constants in force_constants(result, structure):
            for column, block in enumerate(constants):
                file.write(f"{row + 1} {column + 1}\n")
                # As many digits as a double has, whatever its size.
                file.writelines("{:25.16e}{:25.16e}{:25.16e}\n".format(*line) for line in block)
            advance(constants.nbytes)


def force_constants(result: Result, structure: Structure) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each row's atom, and its blocks in eV/Å², of shape (atoms, 3, 3)."""
    for place, atom in enumerate(row_atoms(result)):
        band = result[3 * place : 3 * place + 3].astype(np.float64) * structure.factor
        yield int(atom), band.reshape(3, -1, 3).transpose(1, 0, 2)


def require_all_columns(result: Result, name: str) -> None:
    """Check that the Hessian has the columns of all atoms.

    Raises:
        ResultError: If it does not.
    """
    if (
        result.selection is not None
        and len(result.column_numbers) < result.selection.whole_shape[1]
    ):
        raise ResultError(
            f"{name} needs the columns of all atoms, and {result.path} holds {result.selection}."
        )
