"""One of several matrices of a file, in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from outputs._format.axes import TensorSpec, find_tensor


class MatrixInMemory:
    """A matrix with the tensors of its rows and columns.

    Attributes:
        rows: The tensors of its rows.
        columns: The tensors of its columns.
        shape: (rows, columns).
        dtype: Dtype of the entries.
    """

    def __init__(
        self, values: np.ndarray, rows: tuple[TensorSpec, ...], columns: tuple[TensorSpec, ...]
    ) -> None:
        self._values, self.rows, self.columns = values, rows, columns
        self.shape: tuple[int, int] = (values.shape[0], values.shape[1])
        self.dtype = values.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return a part of the matrix, as numpy does."""
        return self._values[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype=dtype, copy=bool(copy) or None)

    def block(self, row: str, column: str) -> np.ndarray:
        """Return the entries of one row tensor by one column tensor, of natural shape.

        Raises:
            ResultError: There is no tensor of such a name.
        """
        above, row_spec = find_tensor("row", self.rows, row)
        left, column_spec = find_tensor("column", self.columns, column)
        values = self._values[above : above + row_spec.size, left : left + column_spec.size]
        return values.reshape(row_spec.shape + column_spec.shape)
