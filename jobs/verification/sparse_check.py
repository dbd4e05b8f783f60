"""The check of a sparse matrix, pattern included: whole, when it is assembled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch

from jobs.errors import JobError
from jobs.job import Job
from jobs.verification.numerics import Probe, in_double_precision, rounding_floor
from jobs.verification.probe_products import ProbeProducts
from outputs import Probes


@dataclass(frozen=True)
class Matrix:
    """A sparse matrix in compressed rows.

    Attributes:
        indptr: Shape (rows + 1,).
        indices: Shape (entries,).
        data: Shape (entries,).
        shape: (rows, columns).
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]


def check_sparse(job: Job, value: Any, matrix: Matrix) -> tuple[dict[str, Any], Probes | None]:
    """Hold a whole sparse matrix against products with the function's own derivative.

    What the products with v and u see is the true matrix, so that an entry outside of the pattern
    shows as well as a wrong one.

    Args:
        job: The job.
        value: What the function returns at the point.
        matrix: The matrix.

    Returns:
        The figures for the record, and the probes for the file.

    Raises:
        JobError: A row or column disagrees.
    """
    if job.verify == "off":
        return {"kind": "none", "reason": "verify=off"}, None
    widest = max(torch.finfo(dtype).eps for dtype in (job.dtype, job.storage or job.dtype))
    tolerance = widest**0.5
    probes = ProbeProducts(job, value)
    right, reason = probes.right()
    left, left_reason = probes.left()
    if right is None and left is None:
        return {"kind": "none", "reason": reason or left_reason}, None
    array = scipy.sparse.csr_array(
        (matrix.data.astype(np.float64), matrix.indices, matrix.indptr), shape=matrix.shape
    )
    squares = abs(array).power(2)
    largest, lines, floors = 0.0, 0, []
    for name, probe, product, size in (
        ("rows", right, array.__matmul__, squares.sum(axis=1)),
        ("columns", left, array.T.__matmul__, squares.sum(axis=0)),
    ):
        if probe is None:
            continue
        floors.append(rounding_floor(job, value, probe, tolerance))
        errors = _errors(probe, product, size, floors[-1])
        lines += int(np.isfinite(errors).sum())
        worst = int(np.nanargmax(np.append(errors, -1.0)))
        error = float(errors[worst]) if worst < len(errors) else 0.0
        if error > tolerance:
            wrong = int((errors > tolerance).sum())
            raise JobError(
                f"{wrong} {name} of the sparse matrix, such as {worst}, disagree with an "
                f"independent product by up to {error:.1e} (tolerance {tolerance:.1e}): the "
                "pattern may be that of other branches of the function. sparsity=none computes the "
                "dense matrix; the products are kept"
            )
        largest = max(largest, error)
    figures = {
        "kind": "probe",
        "lines_checked": lines,
        "largest_relative_error": largest,
        "tolerance": tolerance,
    }
    return figures, Probes(
        right=None if right is None else in_double_precision(right.vector),
        right_product=None if right is None else in_double_precision(right.product),
        left=None if left is None else in_double_precision(left.vector),
        left_product=None if left is None else in_double_precision(left.product),
        tolerance=tolerance,
        pairing="bilinear",
        floor=max(floors),
    )


def _errors(probe: Probe, product: Any, squares: np.ndarray, floor: float) -> np.ndarray:
    """The error of each line, as of a block; NaN where there is no finite product."""
    vector, expected = in_double_precision(probe.vector), in_double_precision(probe.product)
    finite = expected[np.isfinite(expected)]
    typical = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    with np.errstate(all="ignore"):
        error = np.abs(product(vector) - expected)
        scale = np.sqrt(squares) * np.linalg.norm(vector) + np.abs(expected) + typical + floor
        relative = np.where(error > 0, error / scale, 0.0)
    # A line that is not finite although its product is has no honest error.
    relative[~np.isfinite(relative)] = np.inf
    relative[~np.isfinite(expected)] = np.nan
    return relative
