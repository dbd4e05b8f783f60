"""What a result answers about its matrix, as `outputs.analyse` does."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from outputs._analysis import determinants, quadrature, solutions, spectra
from outputs._analysis.answer import Answer
from outputs._analysis.budget import Budget, parse_size
from outputs._analysis.gram import Side, gram_in_memory
from outputs._analysis.workspace import Workspace


class Answers:
    """The functions of a result that answer a question about its matrix, out of core.

    Each checks the checksums of the whole file first. Where the matrix (of each point) fits in
    ``memory``, a size such as ``"1GiB"`` or by default half of what is free, SciPy's LAPACK
    routines compute it; else iterations multiply by it, and say how far their numbers are known.
    Each raises a `ResultError` if the matrix does not have the property, is damaged, or has entries
    that are not finite, or if ``memory`` is too small.
    """

    def _workspace(self, memory: str | None) -> Workspace:
        limit = None if memory is None else parse_size(memory)
        subject: Any = self
        return Workspace(subject, Budget.of_process(limit))

    def eigenvalues(
        self, count: int | Literal["all"] = spectra.COUNT, *, memory: str | None = None
    ) -> Answer:
        """Return eigenvalues of a symmetric matrix, ascending.

        Args:
            count: How many at each end of the spectrum, or ``"all"``.
            memory: What the process may take.

        Returns:
            The values, float64 of shape (count,), with a leading dimension over points if there are
            many; ``error`` has a bound for each.
        """
        work = self._workspace(memory)
        return spectra.eigenvalues(work, spectra.checked_count("eigenvalues", count))

    def singular_values(
        self, count: int | Literal["all"] = spectra.COUNT, *, memory: str | None = None
    ) -> Answer:
        """Return the largest singular values, descending.

        Args:
            count: How many, or ``"all"``.
            memory: What the process may take.
        """
        work = self._workspace(memory)
        return spectra.singular_values(work, spectra.checked_count("singular-values", count))

    def diagonal(self, *, memory: str | None = None) -> np.ndarray:
        """Read the diagonal of a square matrix, of shape (rows,) or (points, rows).

        Args:
            memory: What the process may take.
        """
        return determinants.diagonal_of(self._workspace(memory), "diagonal")

    def trace(self, *, memory: str | None = None) -> Answer:
        """Return the sum of the diagonal of a square matrix."""
        return determinants.trace(self._workspace(memory))

    def log_determinant(
        self, *, probes: int = quadrature.PROBES, memory: str | None = None
    ) -> Answer:
        """Return log |det A| of a square matrix.

        Args:
            probes: How many random vectors estimate it where the matrix does not fit in memory.
            memory: What the process may take.
        """
        return determinants.log_determinant(self._workspace(memory), probes)

    def condition(self, *, memory: str | None = None) -> Answer:
        """Return the ratio of the largest and the smallest singular value."""
        return spectra.condition(self._workspace(memory))

    def solve(self, b: np.ndarray, *, memory: str | None = None) -> Answer:
        """Return x with A x = b, of the shape of b.

        Args:
            b: Shape (rows,), (rows, vectors), or with many points (points, rows).
            memory: What the process may take.

        Raises:
            ResultError: Also if the matrix is singular to working precision, or ``b`` does not fit.
        """
        return solutions.solve(self._workspace(memory), np.asarray(b))

    def gram(self, side: Side, *, memory: str | None = None) -> np.ndarray:
        """Return the products of all rows, A Aᴴ, or of all columns, Aᴴ A, in memory.

        Args:
            side: ``"rows"`` or ``"columns"``.
            memory: What the process may take, the products included.
        """
        return gram_in_memory(self._workspace(memory), side)

    def spectral_density(
        self, *, probes: int = quadrature.PROBES, memory: str | None = None
    ) -> Answer:
        """Return what share of the eigenvalues is not above each of some numbers.

        Args:
            probes: How many random vectors estimate it where the matrix does not fit in memory.
            memory: What the process may take.

        Returns:
            The shares; ``arrays["at"]`` has the numbers.
        """
        return spectra.spectral_density(self._workspace(memory), probes)
