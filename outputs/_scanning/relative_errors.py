"""Compare products with probe vectors against reference products."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

# The squares of smaller entries underflow, so a smaller norm counts as this much.
_SMALLEST_NORM = 1e-150


def _typical(sizes: np.ndarray) -> float:
    """Return the root mean square of the finite sizes."""
    sizes = sizes[np.isfinite(sizes)]
    largest = float(sizes.max(initial=0.0))
    # Squares of large products would overflow, and an infinite scale would let all pass.
    return largest * math.sqrt(float(np.mean((sizes / largest) ** 2))) if largest else 0.0


def relative_errors(
    products: np.ndarray,
    expected: np.ndarray,
    squared_norms: np.ndarray,
    probe: np.ndarray,
    floor: float = 0.0,
    bounds: np.ndarray | None = None,
) -> np.ndarray:
    """Return the relative error of the product of each line of a matrix with a probe vector.

    The error is relative to the sum of four terms: |line| |probe|, the magnitude of the expected
    product, the root mean square of the finite expected products, which bounds the error of a line
    whose product cancels, and ``floor``.

    Args:
        products: Products of the lines, of shape (lines,).
        expected: The reference products, of shape (lines,).
        squared_norms: Squared Euclidean norms of the lines, of shape (lines,).
        probe: The probe vector.
        floor: Size of the products that remain from rounding alone, as where a derivative is
            zero by cancellation.
        bounds: Where the lines of each of several matrices begin, and where the last ones end: what
            is small in all of one matrix must not hide behind another. None for one matrix.

    Returns:
        Float64 of shape (lines,). Infinite where a finite product is expected and the line's is
        not finite; NaN where the line cannot be checked, because the expected product is not
        finite, or the squared norm overflows although the product does not.
    """
    with np.errstate(all="ignore"):
        size = np.abs(expected)
        finite = np.isfinite(size)
        typical = np.zeros(len(size))
        for start, stop in pairwise([0, len(size)] if bounds is None else bounds.tolist()):
            typical[start:stop] = _typical(size[start:stop])
        errors = np.abs(products - expected)
        # Not by `np.linalg.norm`: the threads of its BLAS disturb those that read (measured).
        length = math.sqrt(float(np.sum(np.square(np.abs(probe)))))
        scale = np.maximum(np.sqrt(squared_norms), _SMALLEST_NORM) * length
        relative = np.where(errors > 0, errors / (scale + size + (typical + floor)), errors)
    relative = np.where(np.isfinite(products), relative, np.inf)
    is_checkable = finite & (np.isfinite(squared_norms) | ~np.isfinite(products))
    return np.where(is_checkable, relative, np.nan)
