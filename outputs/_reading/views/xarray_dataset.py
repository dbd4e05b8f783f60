"""A result as a dataset of xarray, its matrix read when it is needed.

Imports xarray; imported itself only by those who ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from outputs._reading.views import metadata as companions

if TYPE_CHECKING:
    from outputs._reading.result import Result


def xarray_dataset(result: Result) -> xarray.Dataset:
    """The matrix, the tables, and the arrays beside it.

    Its dimensions are (row, column), or (point_number, row, column) with many points.

    Args:
        result: A complete result; has to stay open until the matrix is loaded.
    """
    matrix = xarray.Variable(
        ("point_number", "row", "column")[-result.ndim :],
        indexing.LazilyIndexedArray(_Matrix(result)),
        {"long_name": f"{result.operation} of {result.function}"},
    )
    variables: dict[str, Any] = {result.operation: matrix, **companions.beside(result)}
    return xarray.Dataset(variables, attrs=companions.attributes(result))


class _Matrix(BackendArray):
    def __init__(self, result: Result) -> None:
        self._result = result
        self.shape = result.shape
        self.dtype = result.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        support = indexing.IndexingSupport.OUTER_1VECTOR
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        return self._result[key]
