"""Export force constants as phonopy's force_constants.hdf5."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from outputs._exports.phonopy_text import force_constants, require_all_columns
from outputs._exports.structures import Structure, column_atoms, row_atoms
from outputs._reading.result import Result
from outputs._scanning.sequential import Advance
from outputs._storage.files import create_file


def write(result: Result, path: Path, advance: Advance, structure: Structure) -> None:
    """Write ``force_constants`` of shape (atoms, atoms, 3, 3), in eV/Å².

    Of a part with the rows of some atoms, ``p2s_map`` has their numbers, which count from 0.

    Args:
        result: A Hessian by positions, of whole columns.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
        structure: The units.
    """
    require_all_columns(result, "phonopy-hdf5")
    rows, columns = row_atoms(result), column_atoms(result)
    with create_file(path) as file:
        target = file.create_dataset("force_constants", (len(rows), len(columns), 3, 3), np.float64)
        for place, (_, constants) in enumerate(force_constants(result, structure)):
            target[place] = constants
            file.require_written()
            advance(constants.nbytes)
        file.create_dataset("p2s_map", data=rows)
        unit = np.array([b"eV/angstrom^2"], dtype=object)
        file.create_dataset("physical_unit", data=unit, dtype=h5py.string_dtype())
