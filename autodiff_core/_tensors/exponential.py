"""The derivative of the exponential of a matrix, in many directions at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autodiff_core._tensors.matrix_product import matrix_product

_PADE = (17297280.0, 8648640.0, 1995840.0, 277200.0, 25200.0, 1512.0, 56.0, 1.0)
"""The coefficients of the numerator of the diagonal Padé approximant of degree 7."""

_LARGEST_NORM = 0.783
"""The largest 1-norm for which the derivative of this approximant is as precise as float64."""


class DerivativeOfExponential:
    """The Fréchet derivative of exp at a matrix A, prepared for many directions.

    A is divided by a power of two, the approximant of its exponential is differentiated, and the
    squarings that lead back are: A. H. Al-Mohy, N. J. Higham, "Computing the Fréchet derivative of
    the matrix exponential, with an application to condition number estimation", SIAM J. Matrix
    Anal. Appl. 30 (2009). A's powers are shared by all directions, which torch, whose way is the
    exponential of a matrix of twice the size, cannot.

    Args:
        matrix: A, of shape (*batch, n, n), with finite elements.
    """

    def __init__(self, matrix: Tensor) -> None:
        self._batch, self._size = matrix.shape[:-2], matrix.shape[-1]
        matrix = matrix.detach().resolve_conj().reshape(-1, self._size, self._size)
        norm = float(torch.linalg.matrix_norm(matrix, 1).max())
        self._squarings = max(0, math.ceil(math.log2(max(norm, 1e-300) / _LARGEST_NORM)))
        a = matrix / 2**self._squarings
        one = torch.eye(self._size, dtype=a.dtype, device=a.device)
        a2 = a @ a
        a4 = a2 @ a2
        self._powers = a, a2, a4
        b = _PADE
        self._inner = b[7] * (a4 @ a2) + b[5] * a4 + b[3] * a2 + b[1] * one
        odd = a @ self._inner
        even = b[6] * (a4 @ a2) + b[4] * a4 + b[2] * a2 + b[0] * one
        # Its condition number is below exp(0.783), so its inverse costs no precision.
        self._inverse = torch.linalg.inv(even - odd)
        self._exponentials = [self._inverse @ (even + odd)]
        for _ in range(self._squarings):
            self._exponentials.append(self._exponentials[-1] @ self._exponentials[-1])

    def __call__(self, directions: Tensor) -> Tensor:
        """Return the derivatives in directions of shape (count, *batch, n, n)."""
        count, n = directions.shape[0], self._size
        # With the directions between rows and columns, products from both sides are single ones.
        e = directions.reshape(count, -1, n, n).permute(1, 2, 0, 3) / 2**self._squarings
        a, a2, a4 = self._powers
        b = _PADE
        m2 = _left(a, e) + _right(e, a)
        m4 = _left(a2, m2) + _right(m2, a2)
        m6 = _left(a4, m2) + _right(m4, a2)
        odd = _left(a, b[7] * m6 + b[5] * m4 + b[3] * m2) + _right(e, self._inner)
        even = b[6] * m6 + b[4] * m4 + b[2] * m2
        first, *others = self._exponentials
        found = _left(self._inverse, odd + even + _right(odd - even, first))
        for exponential in (first, *others)[: self._squarings]:
            found = _left(exponential, found) + _right(found, exponential)
        return found.permute(2, 0, 1, 3).reshape(directions.shape)


def _left(matrices: Tensor, directions: Tensor) -> Tensor:
    """Return products with matrices from the left; directions have shape (batch, n, count, n)."""
    if len(matrices) == 1:
        return matrix_product(matrices[0], directions[0].flatten(1)).reshape(directions.shape)
    return torch.bmm(matrices, directions.flatten(2)).view(directions.shape)


def _right(directions: Tensor, matrices: Tensor) -> Tensor:
    """Return products with matrices from the right; directions have shape (batch, n, count, n)."""
    if len(matrices) == 1:
        return matrix_product(directions, matrices[0]).reshape(directions.shape)
    return torch.bmm(directions.flatten(1, 2), matrices).view(directions.shape)
