"""Present a result as an xarray dataset whose matrix is read on demand.

Imports xarray, so other modules import this one only inside the functions that need it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from outputs._reading.views.metadata import attributes, flat_variables
from outputs._reading.views.protocol import DenseResult


def xarray_dataset(result: DenseResult) -> xarray.Dataset:
    """Return a dataset of the matrix, the tables, and the arrays stored beside it.

    The matrix's dimensions are (row, column), or (point_number, row, column) with many points.
    Selected rows and columns have their numbers in the whole matrix as coordinates.

    Args:
        result: A complete result; it must stay open until the matrix is loaded.
    """
    matrix = xarray.Variable(
        ("point_number", "row", "column")[-result.ndim :],
        indexing.LazilyIndexedArray(_Matrix(result)),
        {"long_name": f"{result.operation} of {result.function}"},
    )
    variables: dict[str, Any] = {result.operation: matrix, **flat_variables(result)}
    return xarray.Dataset(variables, attrs=attributes(result))


class _Matrix(BackendArray):
    def __init__(self, result: DenseResult) -> None:
        self._result = result
        self.shape = result.shape
        self.dtype = result.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        support = indexing.IndexingSupport.OUTER_1VECTOR
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        return self._result[key]
