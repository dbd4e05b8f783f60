"""Verify sparse results: structure, checksums and probe products."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from outputs._errors import ResultError
from outputs._format.probes import Probes
from outputs._reading.sparse_result import SparseResult
from outputs._storage.files import parsed
from outputs._verification.products import (
    Sums,
    check_products,
    in_double_precision,
    zero_sums,
)
from outputs._verification.report import Verification


def verify_sparse(path: Path, opened: Callable[[], object]) -> Verification:
    """Check structure, checksums, and products with both probes.

    Args:
        path: A sparse result.
        opened: Called once the structure of the file has been read.

    Raises:
        ResultError: If the file cannot be read as a sparse result.
    """
    with SparseResult(path) as result:
        with parsed(path):
            _ = result.configuration, result.provenance, result.colours
            recorded = result.verdict
        opened()
        problems = _structural_problems(result)
        facts: dict[str, Any] = {"nonfinite": 0}
        if not problems:
            facts = _check_entries(result, problems)
        probes = result.probes
        return Verification(
            str(path),
            tuple(problems),
            operation=result.operation,
            shape=result.shape,
            dtype=result.dtype.name,
            complete=True,
            blocks=1,
            tolerance=None if probes is None else probes.tolerance,
            bytes_read=result.stored_bytes,
            recorded=recorded,
            **facts,
        )


def _structural_problems(result: SparseResult) -> list[str]:
    damaged = result.damaged_records()
    problems = [f"{found} do not have their checksum" for found in damaged]
    problems += [
        f"{name} {start}:{stop} do not have their checksum"
        for name, start, stop in result.damaged_pieces()
    ]
    try:
        _ = result.pattern
    except ResultError as error:
        problems.append(str(error))
    return problems


def _check_entries(result: SparseResult, problems: list[str]) -> dict[str, Any]:
    """Count the non-finite entries and compare the products, in one pass over the matrix."""
    probes, nonfinite = result.probes, 0
    total = zero_sums(probes, *result.shape, result.dtype)
    for start, rows in result.ranges():
        nonfinite += int(np.count_nonzero(~np.isfinite(rows.data)))
        if probes is not None:
            _add_rows(total, probes, start, rows)
    facts = {} if probes is None else check_products(probes, total, problems)
    return {"nonfinite": nonfinite, **facts}


def _add_rows(total: Sums, probes: Probes, start: int, rows: Any) -> None:
    """Add the contribution of a range of rows to the products and norms."""
    wide = rows.astype(np.complex128 if rows.dtype.kind == "c" else np.float64)
    squares = abs(wide).power(2)
    here = slice(start, start + rows.shape[0])
    with np.errstate(all="ignore"):
        if total.right is not None and total.rows is not None and probes.right is not None:
            total.right[here] += wide @ in_double_precision(probes.right)
            total.rows[here] += squares.sum(axis=1)
        if total.left is not None and total.columns is not None and probes.left is not None:
            total.left += wide.T @ in_double_precision(probes.left)[here]
            total.columns += squares.sum(axis=0)
