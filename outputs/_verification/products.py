"""Accumulate products with probe vectors and compare them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from outputs._format.probes import Probes

# The squares of smaller entries vanish; what is below it counts as this much.
_SMALLEST_NORM = 1e-150


_LISTED = 3


@dataclass
class Sums:
    """What a piece, or the whole matrix, adds up to.

    ``right`` and ``left`` hold products with the probes, ``rows`` and ``columns`` the squared
    norms of the lines.
    """

    right: np.ndarray | None = None
    left: np.ndarray | None = None
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    nonfinite: int = 0
    checksums: list[tuple[int, int, int]] = field(default_factory=list)


def zeros(probes: Probes | None, rows: int, columns: int, dtype: np.dtype) -> Sums:
    if probes is None:
        return Sums()
    sums = Sums()
    if probes.right is not None:
        sums.right, sums.rows = np.zeros(rows, _kind(probes, dtype, probes.right)), np.zeros(rows)
    if probes.left is not None:
        sums.left = np.zeros(columns, _kind(probes, dtype, probes.left))
        sums.columns = np.zeros(columns)
    return sums


def _kind(probes: Probes, dtype: np.dtype, vector: np.ndarray) -> type:
    is_complex = probes.pairing == "bilinear" and "c" in (dtype.kind, vector.dtype.kind)
    return np.complex128 if is_complex else np.float64


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64, copy=False)


def _products(probes: Probes, total: Sums, problems: list[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"lines_checked": 0}
    sides = (
        ("right", "rows", total.right, total.rows, probes.right, probes.right_product),
        ("left", "columns", total.left, total.columns, probes.left, probes.left_product),
    )
    for side, lines, given, squares, vector, expected in sides:
        if given is None or squares is None or vector is None or expected is None:
            continue
        with np.errstate(all="ignore"):
            errors = np.abs(given - expected)
            errors = _relative(errors, squares, vector, expected, probes.floor)
        checked = np.isfinite(errors) & np.isfinite(squares)
        facts["lines_checked"] += int(np.count_nonzero(checked))
        errors = np.where(checked, errors, 0)
        facts[f"{side}_error"] = float(errors.max(initial=0))
        if (wrong := np.flatnonzero(errors > probes.tolerance)).size:
            problems.append(
                f"{wrong.size} of {errors.size} {lines} do not multiply with the {side} probe as "
                f"they should: {listed(map(str, wrong.tolist()))} "
                f"(error {errors.max():.2g}, allowed {probes.tolerance:.2g})"
            )
    return facts


def _relative(
    errors: np.ndarray,
    squares: np.ndarray,
    vector: np.ndarray,
    product: np.ndarray,
    floor: float,
) -> np.ndarray:
    """Errors relative to |line| |vector|, and to the typical product where a line cancels."""
    size = np.abs(product)
    finite = size[np.isfinite(size)]
    typical = math.sqrt(float(np.mean(finite**2))) if finite.size else 0.0
    typical += floor
    scale = np.maximum(np.sqrt(squares), _SMALLEST_NORM) * np.linalg.norm(vector)
    return np.where(
        errors > 0, errors / (scale + np.where(size < np.inf, size, 0) + typical), errors
    )


def listed(texts: Any) -> str:
    texts = list(texts)
    return ", ".join(texts[:_LISTED]) + (", ..." if len(texts) > _LISTED else "")
