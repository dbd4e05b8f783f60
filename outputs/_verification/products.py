"""Accumulate the products of a matrix with probe vectors, and report those that differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from outputs._format.probes import Probes
from outputs._scanning.relative_errors import relative_errors

_LISTED = 3


@dataclass
class Sums:
    """Sums over a piece of a matrix, or over all of it.

    Attributes:
        right: Products of the rows with the right probe, of shape (rows,); None without one.
        left: Products of the columns with the left probe, of shape (columns,); None without one.
        rows: Squared norms of the rows, float64; None without ``right``.
        columns: Squared norms of the columns, float64; None without ``left``.
        nonfinite: Number of entries that are NaN or infinite.
        checksums: (block, CRC-32, bytes) of the parts of blocks in the piece.
    """

    right: np.ndarray | None = None
    left: np.ndarray | None = None
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    nonfinite: int = 0
    checksums: list[tuple[int, int, int]] = field(default_factory=list)


def zero_sums(probes: Probes | None, rows: int, columns: int, dtype: np.dtype) -> Sums:
    """Return sums of zeros for a region.

    Args:
        probes: The probes of the matrix; None without.
        rows: Number of rows of the region.
        columns: Number of columns of the region.
        dtype: Dtype of the matrix.
    """
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


def in_double_precision(values: np.ndarray) -> np.ndarray:
    """Return an array as float64 or complex128, without a copy if it is that already."""
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64, copy=False)


def check_products(
    probes: Probes, total: Sums, problems: list[str], bounds: np.ndarray | None = None
) -> dict[str, Any]:
    """Compare the products of a whole matrix with the reference products.

    Args:
        probes: The probes and their reference products.
        total: The sums over the whole matrix.
        problems: A sentence is appended for each side whose products differ.
        bounds: Where the rows of each of several matrices begin, and where the last ones end; None
            for one matrix.

    Returns:
        ``lines_checked``, ``lines_unchecked``, ``right_error`` and ``left_error`` of a
        `Verification`, as far as there are probes. Lines with entries that are not finite are left
        out: they are counted elsewhere.
    """
    facts: dict[str, Any] = {"lines_checked": 0}
    unchecked = []
    sides = (
        ("right", "rows", total.right, total.rows, probes.right, probes.right_product),
        ("left", "columns", total.left, total.columns, probes.left, probes.left_product),
    )
    for side, lines, products, squares, vector, expected in sides:
        if products is None or squares is None or vector is None or expected is None:
            continue
        of_lines = bounds if side == "right" else None
        errors = relative_errors(products, expected, squares, vector, probes.floor, of_lines)
        checked = np.isfinite(errors)
        facts["lines_checked"] += int(np.count_nonzero(checked))
        unchecked.append(int(np.count_nonzero(~checked)))
        errors = np.where(checked, errors, 0)
        facts[f"{side}_error"] = float(errors.max(initial=0))
        if (wrong := np.flatnonzero(errors > probes.tolerance)).size:
            problems.append(
                f"{wrong.size} of {errors.size} {lines} do not multiply with the {side} probe as "
                f"they should: {listed(map(str, wrong.tolist()))} "
                f"(error {errors.max():.2g}, allowed {probes.tolerance:.2g})"
            )
    return facts | {"lines_unchecked": min(unchecked, default=0)}


def listed(texts: Iterable[str]) -> str:
    """Return the first few texts, separated by commas."""
    texts = list(texts)
    return ", ".join(texts[:_LISTED]) + (", ..." if len(texts) > _LISTED else "")
