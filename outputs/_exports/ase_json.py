"""Export a Hessian with its atoms as the JSON of ASE's VibrationsData."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from outputs._errors import ResultError
from outputs._exports.structures import Atoms, Structure, row_atoms
from outputs._reading.result import Result
from outputs._scanning.sequential import Advance


def write(result: Result, path: Path, advance: Advance, structure: Structure) -> None:
    """Write what ``ase.vibrations.VibrationsData.read`` reads, in eV/Å².

    Of a part whose rows and columns are those of some atoms, ``indices`` has their numbers.

    Args:
        result: A Hessian by positions.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
        structure: The atoms and the units.
    """
    if not np.array_equal(result.row_numbers, result.column_numbers):
        raise ResultError(
            f"ase needs the rows and the columns of the same atoms, and {result.path} holds "
            f"{result.selection}."
        )
    rows = row_atoms(result)
    atoms = structure.atoms(result, "ase")
    shape = [len(rows), 3, len(rows), 3]
    indices = None if result.selection is None else _array(rows)
    with open(path, "x", encoding="ascii") as file:
        file.write(f'{{"atoms": {json.dumps(_atoms(atoms))}, "hessian": {{"__ndarray__": ')
        file.write(f'[{json.dumps(shape)}, "float64", [')
        for number in range(3 * len(rows)):
            line = result[number].astype(np.float64) * structure.factor
            file.write(", " * bool(number) + ", ".join(map(repr, line.tolist())))
            advance(line.nbytes)
        file.write(f']]}}, "indices": {json.dumps(indices)}, ')
        file.write('"__ase_objtype__": "vibrationsdata"}')


def _atoms(atoms: Atoms) -> dict[str, object]:
    return {
        "numbers": _array(atoms.numbers),
        "positions": _array(atoms.positions),
        "cell": _array(atoms.cell),
        "pbc": _array(atoms.periodic),
        "__ase_objtype__": "atoms",
    }


def _array(values: np.ndarray) -> dict[str, object]:
    return {"__ndarray__": [list(values.shape), values.dtype.name, values.reshape(-1).tolist()]}
