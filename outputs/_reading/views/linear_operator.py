"""The matrix of a result as an operator of SciPy that multiplies out of core."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from outputs._optional import load
from outputs._scanning.sequential import pieces
from outputs._storage.files import translated

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

    from outputs._reading.result import Result


def linear_operator(result: Result) -> LinearOperator:
    """An operator of shape (rows, columns) whose products read the matrix once, in pieces.

    A contiguous matrix is read in bands of rows, a tiled one by whole tiles. Besides the factors
    and the product a few pieces of 4 MiB, or tiles, are in memory.

    Args:
        result: A complete result; has to stay open while the operator is used.

    Raises:
        MissingDependencyError: If SciPy is not installed.
    """
    linalg = load("scipy.sparse.linalg", "reading", "as_linear_operator()")
    # float32 at least: half floats are slow and coarse, and integers no field.
    dtype = np.result_type(result.dtype, np.float32)

    def product(right: np.ndarray) -> np.ndarray:
        total = np.zeros(result.matrix_shape[:1] + right.shape[1:], np.result_type(dtype, right))
        with translated(result.path):
            for (rows, columns), values in pieces(result.matrix()):
                total[rows] += values.astype(dtype, copy=False) @ right[columns]
        return total

    def adjoint_product(left: np.ndarray) -> np.ndarray:
        # conj(A^T conj(x)) is A^H x, without a conjugated copy of A.
        left = left.conj()
        total = np.zeros(result.matrix_shape[1:] + left.shape[1:], np.result_type(dtype, left))
        with translated(result.path):
            for (rows, columns), values in pieces(result.matrix()):
                total[columns] += values.astype(dtype, copy=False).T @ left[rows]
        return total.conj()

    return linalg.LinearOperator(
        result.matrix_shape,
        matvec=product,
        rmatvec=adjoint_product,
        matmat=product,
        rmatmat=adjoint_product,
        dtype=dtype,
    )
