"""Triangular systems with one matrix and many right-hand sides, solved by matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from autodiff_core._tensors.matrix_product import has_fast_product, matrix_product

LARGEST_INVERTED = 128
"""So large are the diagonal blocks of which the inverse is formed."""

SMALLEST = 64
"""Of so many unknowns and right-hand sides on products are faster than substitution."""

_LARGEST_CONDITION = 30.0
"""Up to this condition of a diagonal block, in the 1-norm, its inverse serves as well.

Multiplying by an inverse can lose as many digits more than substitution as the block's condition
has (measured: with a condition of 4000, 200 times the error).
"""


@dataclass(frozen=True)
class _Step:
    """A part of the unknowns is multiplied by a block, or less the multiple of another part."""

    target: slice
    source: slice | None
    block: Tensor


class TriangularSystem:
    """A triangular matrix M, prepared for solving M X = B for many columns.

    Substitution by blocks: half of the unknowns, what they contribute to the other half by one
    product, and then these, down to diagonal blocks, by whose inverses is multiplied. Where one of
    these is not well conditioned, torch's own substitution stays: N. J. Higham, "Accuracy and
    Stability of Numerical Algorithms", SIAM, 2nd edition (2002), sections 8.1 and 14.1.

    Args:
        matrix: M, of shape (n, n).
        is_lower: Whether it is lower triangular, else upper; the other half is not looked at.
        has_unit_diagonal: Whether its diagonal is taken to be ones.
    """

    def __init__(self, matrix: Tensor, *, is_lower: bool, has_unit_diagonal: bool) -> None:
        self._matrix = matrix
        self._is_lower = is_lower
        self._has_unit_diagonal = has_unit_diagonal
        # Prepared when many columns come.
        self._steps: list[_Step] | None = None

    def solve(self, columns: Tensor) -> Tensor:
        """X with M X = B.

        Args:
            columns: B, of shape (n, m).
        """
        steps = self._products(columns.shape[1])
        if not steps:
            return self._by_substitution(self._matrix, columns)
        unknowns = columns.clone(memory_format=torch.contiguous_format)
        for step in steps:
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
        steps = self._products(rows.shape[0])
        if not steps:
            return torch.linalg.solve_triangular(
                self._matrix.mT,
                rows,
                upper=self._is_lower,
                left=False,
                unitriangular=self._has_unit_diagonal,
            )
        unknowns = rows.clone(memory_format=torch.contiguous_format)
        for step in steps:
            target = unknowns[:, step.target]
            if step.source is None:
                target.copy_(matrix_product(target, step.block.mT))
            else:
                target.sub_(matrix_product(unknowns[:, step.source], step.block.mT))
        return unknowns

    def _products(self, count: int) -> list[_Step]:
        """The steps for so many right-hand sides; none where substitution is to be preferred."""
        if min(self._matrix.shape[0], count) < SMALLEST or not has_fast_product(self._matrix):
            return []
        if self._steps is None:
            steps = list(self._substitution(0, self._matrix.shape[0]))
            self._steps = [] if None in steps else [step for step in steps if step is not None]
        return self._steps

    def _substitution(self, start: int, stop: int) -> Iterator[_Step | None]:
        """The steps for a range of unknowns, with None for what is badly conditioned."""
        whole = slice(start, stop)
        if stop - start <= LARGEST_INVERTED:
            block = self._matrix[whole, whole]
            identity = torch.eye(stop - start, dtype=block.dtype, device=block.device)
            inverse = self._by_substitution(block, identity)
            yield _Step(whole, None, inverse) if self._is_good(block, inverse) else None
            return
        middle = (start + stop) // 2
        first, last = slice(start, middle), slice(middle, stop)
        if not self._is_lower:
            first, last = last, first
        yield from self._substitution(first.start, first.stop)
        yield _Step(last, first, self._matrix[last, first].contiguous())
        yield from self._substitution(last.start, last.stop)

    def _is_good(self, block: Tensor, inverse: Tensor) -> bool:
        half = block.tril() if self._is_lower else block.triu()
        if self._has_unit_diagonal:
            half.fill_diagonal_(1)
        norms = [torch.linalg.matrix_norm(each, 1) for each in (half, inverse)]
        return bool(norms[0] * norms[1] <= _LARGEST_CONDITION)

    def _by_substitution(self, matrix: Tensor, columns: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(
            matrix,
            columns,
            upper=not self._is_lower,
            unitriangular=self._has_unit_diagonal,
        )
