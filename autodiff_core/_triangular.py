"""Triangular systems with one matrix and many right-hand sides, solved by matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from autodiff_core._matrix_product import has_fast_product, matrix_product

LARGEST_INVERTED = 256
"""So large are the diagonal blocks of which the inverse is formed."""


@dataclass(frozen=True)
class _Step:
    """A part of the unknowns is multiplied by a block, or less the multiple of another part."""

    target: slice
    source: slice | None
    block: Tensor


class TriangularSystem:
    """A triangular matrix M, prepared for solving M X = B for many columns.

    Substitution by blocks: half of the unknowns, what they contribute to the other half by one
    product, and then these, down to diagonal blocks, by whose inverses is multiplied. That rounds
    about as substitution itself does where the diagonal blocks are not much worse conditioned than
    M: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", SIAM, 2nd edition (2002),
    sections 8.4 and 14.2.

    Args:
        matrix: M, of shape (n, n).
        is_lower: Whether it is lower triangular, else upper; the other half is not looked at.
        has_unit_diagonal: Whether its diagonal is taken to be ones.
    """

    def __init__(self, matrix: Tensor, *, is_lower: bool, has_unit_diagonal: bool) -> None:
        self._matrix = matrix
        self._is_lower = is_lower
        self._has_unit_diagonal = has_unit_diagonal
        self._steps = list(self._substitution(0, matrix.shape[0]))

    @staticmethod
    def pays(matrix: Tensor, columns: int) -> bool:
        """Whether products are that much faster than torch's own substitution.

        Args:
            matrix: The matrix.
            columns: How many right-hand sides there are.
        """
        return min(matrix.shape[0], columns) >= LARGEST_INVERTED and has_fast_product(matrix)

    def solve(self, columns: Tensor) -> Tensor:
        """X with M X = B.

        Args:
            columns: B, of shape (n, m).
        """
        unknowns = columns.clone(memory_format=torch.contiguous_format)
        for step in self._steps:
            target = unknowns[step.target]
            if step.source is None:
                target.copy_(matrix_product(step.block, target))
            else:
                target.sub_(matrix_product(step.block, unknowns[step.source]))
        return unknowns

    def solve_rows(self, rows: Tensor) -> Tensor:
        """X with X Mᵀ = B.

        Args:
            rows: B, of shape (m, n).
        """
        unknowns = rows.clone(memory_format=torch.contiguous_format)
        for step in self._steps:
            target = unknowns[:, step.target]
            if step.source is None:
                target.copy_(matrix_product(target, step.block.mT))
            else:
                target.sub_(matrix_product(unknowns[:, step.source], step.block.mT))
        return unknowns

    def _substitution(self, start: int, stop: int) -> Iterator[_Step]:
        whole = slice(start, stop)
        if stop - start <= LARGEST_INVERTED:
            block = self._matrix[whole, whole]
            identity = torch.eye(stop - start, dtype=block.dtype, device=block.device)
            inverse = torch.linalg.solve_triangular(
                block,
                identity,
                upper=not self._is_lower,
                unitriangular=self._has_unit_diagonal,
            )
            yield _Step(whole, None, inverse)
            return
        middle = (start + stop) // 2
        first, last = slice(start, middle), slice(middle, stop)
        if not self._is_lower:
            first, last = last, first
        yield from self._substitution(first.start, first.stop)
        yield _Step(last, first, self._matrix[last, first].contiguous())
        yield from self._substitution(last.start, last.stop)
