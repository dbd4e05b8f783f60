"""Present the matrix of a result as a SciPy operator that multiplies out of core."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from outputs._optional import load
from outputs._reading.views.protocol import DenseResult
from outputs._scanning.sequential import pieces
from outputs._storage.files import translated

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


def linear_operator(result: DenseResult) -> LinearOperator:
    """Return an operator of shape (rows, columns) whose products read the matrix once, in pieces.

    A contiguous matrix is read in bands of rows, a tiled one by whole tiles. Besides the factors
    and the product, memory holds a few pieces of 4 MiB, or a few tiles.

    Args:
        result: A complete result; it must stay open while the operator is used.

    Raises:
        MissingDependencyError: If SciPy is not installed.
    """
    linalg = load("scipy.sparse.linalg", "reading", "as_linear_operator()")
    # Use at least float32: half floats are slow and coarse, and integers are not a field.
    dtype = np.result_type(result.dtype, np.float32)

    def product(right: np.ndarray) -> np.ndarray:
        total = np.zeros(result.matrix_shape[:1] + right.shape[1:], np.result_type(dtype, right))
        with translated(result.path):
            for (rows, columns), values in pieces(result.matrix()):
                total[rows] += values.astype(dtype, copy=False) @ right[columns]
        return total

    def adjoint_product(left: np.ndarray) -> np.ndarray:
        # conj(A^T conj(x)) equals A^H x and needs no conjugated copy of A.
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
