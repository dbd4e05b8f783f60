"""NumPy's file of one array: the matrix alone."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from outputs._exports import Advance
from outputs._scanning.sequential import bands, sequential_order

if TYPE_CHECKING:
    from outputs._reading.result import Result


def write(result: Result, path: Path, advance: Advance) -> None:
    """Writes the matrix as ``.npy``.

    Args:
        result: A complete result.
        path: A file that does not exist.
        advance: Told the bytes of every piece.
    """
    with open(path, "xb") as file:
        write_matrix(result, file, advance)


def write_matrix(result: Result, file: IO[bytes], advance: Advance) -> None:
    """Streams the matrix in NumPy's format, front to back, into a file or a member of an archive.

    A matrix in tall tiles is stored in Fortran order, so that a band of tiles is in memory and
    not a band of rows through all of them; ``numpy.load`` shows the same array. Not through
    ``open_memmap``: the pages that one dirties count as memory of the process until the kernel
    writes them back.

    Args:
        result: A complete result.
        file: Open for writing.
        advance: Told the bytes of every piece.
    """
    order = sequential_order(result.dataset())
    header = {
        "descr": np.lib.format.dtype_to_descr(result.dtype),
        "fortran_order": order == "F",
        "shape": result.shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    for band in bands(result.dataset(), order):
        file.write(np.ascontiguousarray(band if order == "C" else band.T).data.cast("B"))
        advance(band.nbytes)
