"""Eigenvalues at the ends of a spectrum, and solutions, from products with the matrix alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from outputs._optional import load

Product = Callable[[np.ndarray], np.ndarray]
"""Returns the product of the matrix with vectors, of shape (size, vectors)."""

TOLERANCE = 1e-10
"""The residual, relative to the largest eigenvalue, at which an eigenvalue counts as found."""
_ROUNDING = 1e-14
# Beyond this size the time for the projected matrix exceeds that for passes over a file.
_LARGEST_SUBSPACE = 2000


@dataclass(frozen=True)
class Extremes:
    """Eigenvalues, and how well they are known.

    Attributes:
        values: Ascending, float64 of shape (found,).
        residuals: ‖A v - λ v‖ of each; within so much of each value there is an eigenvalue.
        passes: Number of products with a block of vectors.
        missed: How many have not converged: an eigenvalue is near, but others may lie further out.
    """

    values: np.ndarray
    residuals: np.ndarray
    passes: int
    missed: int


def needed_columns(count: int) -> int:
    """Return how many vectors `extreme_eigenvalues` needs at least to find so many at each end."""
    return 14 * count + 40


def extreme_eigenvalues(
    product: Product,
    size: int,
    dtype: np.dtype,
    count: int,
    *,
    columns: int,
    smallest: bool = True,
) -> Extremes:
    """Find the largest eigenvalues of a symmetric (Hermitian) matrix, and the smallest if asked.

    The block Lanczos method with thick restarts and full orthogonalization (K. Wu and H. Simon,
    "Thick-restart Lanczos method", SIAM J. Matrix Anal. Appl. 22, 2000). SciPy's `eigsh` multiplies
    one vector in each pass over the file, and finds one vector of a multiple eigenvalue; blocks of
    ``count`` vectors take fewer passes, and find multiplicities up to ``count``. It ends when all
    are found, or after as many products as the matrix has columns: the residuals tell.

    Args:
        product: Multiplies by the matrix.
        size: Rows of the matrix.
        dtype: float64 or complex128.
        count: How many at each end; also the number of vectors of a block.
        columns: How many vectors fit in memory, at least `needed_columns` and less than ``size``.
        smallest: Whether those at the lower end are wanted as well.
    """
    state = _Subspace(product, size, dtype, count, min(columns - 6 * count, _LARGEST_SUBSPACE))
    while True:
        state.expand()
        is_last = (state.passes + 1) * count > size
        if not (is_last or state.is_due):
            state.extend()
            continue
        values, vectors, residuals = state.ritz()
        lower = np.arange(count if smallest else 0)
        wanted = np.concatenate([lower, np.arange(len(values) - count, len(values))])
        bound = TOLERANCE * np.abs(values).max()
        if is_last or (residuals[wanted] <= bound).all():
            break
        state.extend(values, vectors)
    found = state.basis @ vectors[:, wanted]
    left = product(found) - found * values[wanted]
    residuals = np.linalg.norm(left, axis=0)
    missed = int((residuals > 10 * bound).sum())
    return Extremes(values[wanted], residuals, state.passes + 1, missed)


class _Subspace:
    """An orthonormal basis, the projection of the matrix on it, and the block that extends it."""

    def __init__(
        self, product: Product, size: int, dtype: np.dtype, block: int, capacity: int
    ) -> None:
        self._product, self._width, self._capacity = product, block, capacity
        self._vectors = np.empty((size, capacity), dtype, order="F")
        self._projected = np.zeros((capacity, capacity), dtype)
        start = np.random.default_rng(0).standard_normal((size, block))
        self._vectors[:, :block] = np.linalg.qr(start.astype(dtype))[0]
        self._done, self._used, self.passes = 0, block, 0
        self._examined = 4 * block

    @property
    def basis(self) -> np.ndarray:
        return self._vectors[:, : self._used]

    @property
    def _is_full(self) -> bool:
        return self._used + self._width > self._capacity

    @property
    def is_due(self) -> bool:
        """Whether it has grown by a tenth since it was examined, which costs a cubic time."""
        return self._is_full or self._used >= 1.1 * self._examined

    def expand(self) -> None:
        """Multiply the last block by the matrix, and orthogonalize the image."""
        last = slice(self._done, self._used)
        image = self._product(np.ascontiguousarray(self._vectors[:, last]))
        self.passes += 1
        basis = self.basis
        coefficients = np.zeros((self._used, image.shape[1]), image.dtype)
        # Twice, or rounding spoils the orthogonality.
        for _ in range(2):
            part = basis.conj().T @ image
            image -= basis @ part
            coefficients += part
        self._projected[: self._used, last] = coefficients
        self._projected[last, : self._used] = coefficients.conj().T
        self._next, self._coupling = self._orthonormal(image)

    def _orthonormal(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return an orthonormal basis of what extends the space, and the image in it.

        Where the image has fewer dimensions than columns, the rest of the basis is arbitrary, and
        needs another orthogonalization.
        """
        extension, coupling = np.linalg.qr(image)
        for _ in range(2):
            extension -= self.basis @ (self.basis.conj().T @ extension)
            extension, change = np.linalg.qr(extension)
            coupling = change @ coupling
        return extension, coupling

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Ritz values, their coefficients, and the norms of their residuals."""
        self._examined = self._used
        values, vectors = np.linalg.eigh(self._projected[: self._used, : self._used])
        last = vectors[self._done : self._used]
        return values, vectors, np.linalg.norm(self._coupling @ last, axis=0)

    def extend(self, values: np.ndarray | None = None, vectors: np.ndarray | None = None) -> None:
        """Add the next block to the basis, which is restarted with half of its vectors if full."""
        if self._is_full and values is not None and vectors is not None:
            half = (self._capacity - self._width) // 4
            kept = np.unique(np.r_[0:half, len(values) - half : len(values)])
            self._restart(values[kept], vectors[:, kept])
        self._done = self._used
        self._used += self._width
        self._vectors[:, self._done : self._used] = self._next

    def _restart(self, values: np.ndarray, vectors: np.ndarray) -> None:
        # In bands of rows, so that there are never two bases.
        for start in range(0, len(self._vectors), 4096):
            band = self._vectors[start : start + 4096]
            band[:, : len(values)] = band[:, : self._used] @ vectors
        self._projected[:] = 0
        np.fill_diagonal(self._projected[: len(values), : len(values)], values)
        self._used = self._examined = len(values)


def solved(product: Product, adjoint: Product | None, b: np.ndarray) -> tuple[np.ndarray, str, int]:
    """Solve A x = b for one vector by SciPy's iterations, out of core.

    Args:
        product: Multiplies by the matrix, which is real and square.
        adjoint: Multiplies by its transpose; None for a symmetric matrix.
        b: float64 of shape (size,).

    Returns:
        The solution, the name of the method, and the number of products.
    """
    linalg = load("scipy.sparse.linalg", "reading", "An analysis")
    passes, size = 0, len(b)

    def counted(multiply: Product) -> Product:
        def multiplied(x: np.ndarray) -> np.ndarray:
            nonlocal passes
            passes += 1
            return multiply(x.reshape(-1, 1))[:, 0]

        return multiplied

    operator = linalg.LinearOperator(
        (size, size),
        matvec=counted(product),
        rmatvec=counted(adjoint or product),
        dtype=np.float64,
    )
    if adjoint is None:
        found = linalg.minres(operator, b, rtol=_ROUNDING, maxiter=size)[0]
        return found, "MINRES", passes
    found = linalg.lsmr(operator, b, atol=_ROUNDING, btol=_ROUNDING, conlim=0, maxiter=size)[0]
    return found, "LSMR", passes
