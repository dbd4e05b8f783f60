"""Solve triangular systems with one matrix and many right-hand sides by matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from autodiff_core._tensors.matrix_product import has_fast_product, matrix_product
from autodiff_core._tensors.thresholds import reaches

LARGEST_INVERTED = 128
"""The largest size of a diagonal block whose inverse is formed."""

SMALLEST = 16
"""From this many unknowns on, products are faster than substitution for many right-hand sides."""

FEWEST = 64
"""From this many right-hand sides on."""

MANY_ELEMENTS = 2**12
"""From this many elements of the right-hand sides on: with 16 to 32 unknowns three to six times as
fast for columns, up to 1.7 times for rows (measured)."""

_LARGEST_CONDITION = 30.0
"""The largest condition number of a diagonal block whose inverse is used.

Multiplying by an inverse can increase the error of substitution by up to the condition number
(measured: with a condition number of 4000, 200 times the error).
"""


@dataclass(frozen=True)
class _Step:
    """Multiply some unknowns by a block, or subtract a block times other unknowns from them."""

    target: slice
    source: slice | None
    block: Tensor


class TriangularSystem:
    """A triangular matrix M, prepared for solving M X = B for many columns.

    The method is substitution by blocks: solve for half of the unknowns, subtract their
    contribution to the other half by one product, solve for the other half, recursively down to
    diagonal blocks, which are multiplied by their inverses. A block that is not well conditioned is
    divided further; if a small one is not, torch's substitution is used instead: N. J. Higham,
    "Accuracy and Stability of Numerical Algorithms", SIAM, 2nd edition (2002), sections 8.1 and
    14.1.

    Args:
        matrix: M, of shape (n, n).
        is_lower: Whether M is lower triangular, else upper; the other half is ignored.
        has_unit_diagonal: Whether the diagonal of M is assumed to be ones.
    """

    def __init__(self, matrix: Tensor, *, is_lower: bool, has_unit_diagonal: bool) -> None:
        self._matrix = matrix
        self._is_lower = is_lower
        self._has_unit_diagonal = has_unit_diagonal
        # Prepared at the first call with many columns.
        self._steps: list[_Step] | None = None

    def inverse(self, count: int) -> Tensor | None:
        """Return the inverse of M if products with it solve the system.

        Args:
            count: How many right-hand sides there are.
        """
        steps = self._products(count)
        return steps[0].block if len(steps) == 1 else None

    def solve(self, columns: Tensor) -> Tensor:
        """Return X with M X = B.

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
        """Return X with X Mᵀ = B.

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
        """Return the steps for a number of right-hand sides; none if substitution is preferable."""
        size = self._matrix.shape[0]
        if size < SMALLEST or not has_fast_product(self._matrix):
            return []
        if not reaches(count, FEWEST) or not reaches(size * count, MANY_ELEMENTS):
            return []
        if self._steps is None:
            steps = list(self._substitution(0, self._matrix.shape[0]))
            self._steps = [] if None in steps else [step for step in steps if step is not None]
        return self._steps

    def _substitution(self, start: int, stop: int) -> Iterator[_Step | None]:
        """Yield the steps for a range of unknowns; None for a badly conditioned block."""
        whole, size = slice(start, stop), stop - start
        if size <= LARGEST_INVERTED:
            block = self._matrix[whole, whole]
            identity = torch.eye(size, dtype=block.dtype, device=block.device)
            inverse = self._by_substitution(block, identity)
            is_good = self._is_good(block, inverse)
            if is_good or size < 2 * SMALLEST:
                yield _Step(whole, None, inverse) if is_good else None
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
        # The error is bounded in either norm.
        norms = [
            [torch.linalg.matrix_norm(each, order) for each in (half, inverse)]
            for order in (1, torch.inf)
        ]
        return bool(min(first * second for first, second in norms) <= _LARGEST_CONDITION)

    def _by_substitution(self, matrix: Tensor, columns: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(
            matrix,
            columns,
            upper=not self._is_lower,
            unitriangular=self._has_unit_diagonal,
        )
