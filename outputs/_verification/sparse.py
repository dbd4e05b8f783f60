"""Verify sparse results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from outputs._format.probes import Probes
from outputs._reading.sparse_result import SparseResult
from outputs._storage.files import parsed
from outputs._verification.products import Sums, _products, _wide, zeros
from outputs._verification.report import Verification


def verify_sparse(path: Path, opened: Callable[[], object]) -> Verification:
    """The same of a sparse result: structure, checksums, and products with both probes."""
    with SparseResult(path) as result:
        with parsed(path):
            _ = result.configuration, result.provenance, result.execution, result.colours
        opened()
        problems = [
            f"{name} {start}:{stop} do not have their checksum"
            for name, start, stop in result.damaged_pieces()
        ]
        indptr, indices = result.pattern
        if not _are_rows(indptr, indices, result.shape):
            problems.append("indptr and indices are not those of compressed rows")
        facts: dict[str, Any] = {"nonfinite": 0}
        probes = result.probes
        if not problems:
            total = zeros(probes, *result.shape, result.dtype)
            for start, rows in result.ranges():
                facts["nonfinite"] += int(np.count_nonzero(~np.isfinite(rows.data)))
                if probes is not None:
                    _add_rows(total, probes, start, rows)
            if probes is not None:
                facts |= _products(probes, total, problems)
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
            **facts,
        )


def _are_rows(indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]) -> bool:
    """Whether the columns of each row ascend and exist."""
    if indptr[0] != 0 or indptr[-1] != len(indices) or bool((np.diff(indptr) < 0).any()):
        return False
    if len(indices) == 0:
        return True
    ascends = np.diff(indices.astype(np.int64)) > 0
    firsts = indptr[1:-1]
    firsts = firsts[(firsts > 0) & (firsts < len(indices))]
    ascends[firsts - 1] = True
    return bool(ascends.all()) and int(indices.min()) >= 0 and int(indices.max()) < shape[1]


def _add_rows(total: Sums, probes: Probes, start: int, rows: Any) -> None:
    """Add what some rows of a sparse matrix contribute to the products and norms."""
    wide = rows.astype(np.complex128 if rows.dtype.kind == "c" else np.float64)
    squares = abs(wide).power(2)
    here = slice(start, start + rows.shape[0])
    with np.errstate(all="ignore"):
        if total.right is not None and total.rows is not None and probes.right is not None:
            total.right[here] += wide @ _wide(probes.right)
            total.rows[here] += squares.sum(axis=1)
        if total.left is not None and total.columns is not None and probes.left is not None:
            total.left += wide.T @ _wide(probes.left)[here]
            total.columns += squares.sum(axis=0)
