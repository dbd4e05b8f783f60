"""Stochastic Lanczos quadrature: traces of functions of a symmetric matrix, and its spectrum.

S. Ubaru, J. Chen and Y. Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature",
SIAM J. Matrix Anal. Appl. 38, 2017. The bounds of one quadratic form: G. Golub and G. Meurant,
"Matrices, moments and quadrature", 1994.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from outputs._analysis.krylov import Product
from outputs._errors import ResultError
from outputs._optional import load

PROBES = 32
"""How many random vectors are used by default; all are multiplied in one pass."""
_MOST_STEPS = 500
DENSITY_STEPS = 100
VECTORS = 6
"""How many vectors for each probe `lanczos` and a product with them keep."""


@dataclass(frozen=True)
class LogDeterminant:
    """An estimate of log det A of a positive definite matrix.

    Attributes:
        value: The estimate.
        statistical: Its standard error, over the random vectors.
        quadrature: Half of the distance between the bounds, averaged over the random vectors.
        smallest: A lower estimate of the smallest eigenvalue, on which the bounds rest.
        passes: Number of products with a block of vectors.
    """

    value: float
    statistical: float
    quadrature: float
    smallest: float
    passes: int


@dataclass(frozen=True)
class Coefficients:
    """The tridiagonal matrices of so many Lanczos runs.

    Attributes:
        diagonal: Shape (steps, probes).
        beside: Shape (steps, probes); the last row couples to the next step.
    """

    diagonal: np.ndarray
    beside: np.ndarray

    def rules(self) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Yield nodes and weights of each run, and the residual of its smallest node."""
        linalg = load("scipy.linalg", "reading", "An analysis")
        for a, b in zip(self.diagonal.T, self.beside.T, strict=True):
            nodes, vectors = linalg.eigh_tridiagonal(a, b[:-1])
            yield nodes, np.square(vectors[0]), float(b[-1] * abs(vectors[-1, 0]))


def lanczos(product: Product, size: int, probes: int) -> Iterator[Coefficients]:
    """Yield the coefficients of Lanczos runs from Rademacher vectors, after each step.

    All runs share their passes over the matrix. Nothing is orthogonalized again: rounding
    delays the convergence of a quadrature and does not spoil it (A. Greenbaum, "Behavior of
    slightly perturbed Lanczos and conjugate-gradient recurrences", 1989).
    """
    signs = np.random.default_rng(1).integers(0, 2, (size, probes))
    current = (2.0 * signs - 1) / np.sqrt(size)
    previous, coupling = np.zeros_like(current), np.zeros(probes)
    diagonal: list[np.ndarray] = []
    beside: list[np.ndarray] = []
    while True:
        image = product(current)
        image -= coupling * previous
        diagonal.append(np.einsum("ij,ij->j", current.conj(), image).real)
        image -= diagonal[-1] * current
        coupling = np.linalg.norm(image, axis=0)
        beside.append(coupling)
        yield Coefficients(np.array(diagonal), np.array(beside))
        # A run that has an invariant subspace continues with zeros, which have no weight.
        previous, current = current, image / np.where(coupling, coupling, 1)


def log_determinant(product: Product, size: int, probes: int) -> LogDeterminant:
    """Estimate log det A = tr log A of a positive definite matrix, with both of its errors.

    Of each quadratic form zᵀ log(A) z Gauss quadrature is an upper bound, and Gauss-Radau
    quadrature with a node below the spectrum a lower one. The steps end when they are closer than
    a tenth of the statistical error.

    Raises:
        ResultError: If an eigenvalue is negative, or none can be excluded.
    """
    floor, steps = -np.inf, 0
    for steps, runs in enumerate(lanczos(product, size, probes), 1):
        if steps % 5 and steps < size:
            continue
        rules = list(runs.rules())
        least = min(float(nodes[0]) for nodes, _, _ in rules)
        if least < 0:
            raise NotDefiniteError(f"it has eigenvalues of {least:.3g} or less")
        floor = min(float(nodes[0]) - residual for nodes, _, residual in rules)
        if floor > 0:
            found = _estimate(runs, rules, floor, size, steps)
            enough = max(found.statistical / 10, 1e-12 * abs(found.value))
            if found.quadrature <= enough or steps >= min(size, _MOST_STEPS):
                return found
        if steps >= min(size, _MOST_STEPS):
            break
    raise NotDefiniteError(
        f"after {steps} passes its smallest eigenvalue is only known to be above {floor:.3g}"
    )


class NotDefiniteError(ResultError):
    """The matrix is not positive definite, or cannot be shown to be so; the text says why."""


def _estimate(
    runs: Coefficients,
    rules: list[tuple[np.ndarray, np.ndarray, float]],
    floor: float,
    size: int,
    steps: int,
) -> LogDeterminant:
    upper = np.array([weights @ np.log(nodes) for nodes, weights, _ in rules])
    lower = np.array(
        [_radau(a, b, floor) for a, b in zip(runs.diagonal.T, runs.beside.T, strict=True)]
    )
    middle = size * (upper + lower) / 2
    statistical = float(middle.std(ddof=1) / np.sqrt(len(middle)))
    quadrature = float(size * np.abs(upper - lower).mean() / 2)
    return LogDeterminant(float(middle.mean()), statistical, quadrature, floor, steps)


def _radau(a: np.ndarray, b: np.ndarray, node: float) -> float:
    """Return the integral of log by the rule that has a given node below the others."""
    linalg = load("scipy.linalg", "reading", "An analysis")
    # Half of the floor keeps the node clear of the spectrum, whose lower end is an estimate.
    node /= 2
    right = np.zeros(len(a))
    right[-1] = b[-1] ** 2
    bands = np.zeros((2, len(a)))
    bands[0, 1:], bands[1] = b[:-1], a - node
    shift = linalg.solveh_banded(bands, right)[-1]
    nodes, vectors = linalg.eigh_tridiagonal(np.append(a, node + shift), b)
    return float(np.square(vectors[0]) @ np.log(np.maximum(nodes, node)))


@dataclass(frozen=True)
class Density:
    """The spectrum of a matrix as a distribution.

    Attributes:
        nodes: Eigenvalues, or nodes of quadrature, of shape (probes, nodes).
        weights: The share of the spectrum that each stands for; each row adds up to 1.
    """

    nodes: np.ndarray
    weights: np.ndarray

    def cumulative(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of the eigenvalues up to each number, and its standard error."""
        shares = np.array(
            [
                np.append(0, np.cumsum(weights))[np.searchsorted(nodes, at, side="right")]
                for nodes, weights in zip(self.nodes, self.weights, strict=True)
            ]
        )
        error = np.zeros(len(at))
        if len(shares) > 1:
            error = shares.std(axis=0, ddof=1) / np.sqrt(len(shares))
        return shares.mean(axis=0), error


def density(product: Product, size: int, probes: int) -> tuple[Density, int]:
    """Estimate the spectrum of a symmetric matrix; return it with the number of passes."""
    steps = min(size, DENSITY_STEPS)
    for done, runs in enumerate(lanczos(product, size, probes), 1):
        if done == steps:
            rules = list(runs.rules())
            nodes, weights = (np.array([rule[part] for rule in rules]) for part in (0, 1))
            return Density(nodes, weights), steps
    raise AssertionError
