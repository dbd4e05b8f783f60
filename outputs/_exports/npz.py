"""Export to NumPy's archive: the matrix, the tables and the arrays stored beside it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from outputs._exports.npy import write_matrix
from outputs._reading.views.metadata import attributes, flat_variables
from outputs._reading.views.names import escaped
from outputs._reading.views.protocol import DenseResult
from outputs._scanning.sequential import Advance


def write(result: DenseResult, path: Path, advance: Advance) -> None:
    """Write an uncompressed ``.npz``, as ``numpy.savez`` would.

    The members are the matrix under the name of its operation; ``row_name`` and the like,
    ``point_<name>`` and the like; header, provenance and configuration under ``about_<name>``.

    Args:
        result: A complete result.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
    """
    about = {f"about_{escaped(k)}": np.array(v) for k, v in attributes(result).items()}
    variables = {name: values for name, (_, values) in flat_variables(result).items()}
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        with archive.open(f"{result.operation}.npy", "w", force_zip64=True) as member:
            write_matrix(result, member, advance)
        for name, values in (variables | about).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
