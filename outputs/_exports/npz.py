"""NumPy's archive: the matrix, the tables and the arrays beside it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from outputs._exports import Advance
from outputs._exports.npy import write_matrix
from outputs._reading.views import metadata as companions

if TYPE_CHECKING:
    from outputs._reading.result import Result


def write(result: Result, path: Path, advance: Advance) -> None:
    """Writes an uncompressed ``.npz``, as ``numpy.savez`` would.

    Members: the matrix under the name of its operation; ``row_name`` and the like,
    ``point_<name>`` and the like; what the result is, as strings, under ``about_<name>``.

    Args:
        result: A complete result.
        path: A file that does not exist.
        advance: Told the bytes of every piece.
    """
    about = {f"about_{k}": np.array(v) for k, v in companions.attributes(result).items()}
    beside = {name: values for name, (_, values) in companions.beside(result).items()}
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        with archive.open(f"{result.operation}.npy", "w", force_zip64=True) as member:
            write_matrix(result, member, advance)
        for name, values in (beside | about).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
