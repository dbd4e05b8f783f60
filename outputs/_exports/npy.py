"""Export to NumPy's format for a single array: the matrix alone."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

from outputs._reading.views.protocol import DenseResult
from outputs._scanning.sequential import Advance, bands, sequential_order


def write(result: DenseResult, path: Path, advance: Advance) -> None:
    """Write the matrix as ``.npy``.

    Args:
        result: A complete result.
        path: A path at which no file exists yet.
        advance: Called with the number of bytes of each piece written.
    """
    with open(path, "xb") as file:
        write_matrix(result, file, advance)


def write_matrix(result: DenseResult, file: IO[bytes], advance: Advance) -> None:
    """Stream the matrix in NumPy's format, front to back, into a file or a member of an archive.

    A matrix in tall tiles is stored in Fortran order, so that memory holds a band of tiles and
    not a band of rows across all of them; ``numpy.load`` returns the same array. ``open_memmap``
    is not used because dirty pages of a mapping count as memory of the process until the kernel
    writes them back.

    Args:
        result: A complete result.
        file: A binary file open for writing.
        advance: Called with the number of bytes of each piece written.
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
