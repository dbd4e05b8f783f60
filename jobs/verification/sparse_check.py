"""Check a whole sparse matrix, pattern included, when it is assembled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch

from jobs.errors import JobError
from jobs.job import Job
from jobs.verification.numerics import (
    Probe,
    in_double_precision,
    line_errors,
    probes_for_the_file,
    root_mean_square,
    rounding_floor,
)
from jobs.verification.precision import allowed_error, precision_figures
from jobs.verification.probe_products import ProbeProducts
from jobs.verification.routes import Routes
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
    """Compare a whole sparse matrix with products with the function's own derivative.

    The products with v and u are those of the true matrix, so that an entry outside of the pattern
    shows as well as a wrong one.

    Args:
        job: The job.
        value: What the function returns at the point.
        matrix: The matrix.

    Returns:
        The figures for the record, and the probes for the file; None where there are none.

    Raises:
        JobError: A row or column disagrees.
    """
    if job.verify == "off":
        return {"kind": "none", "reason": "verify=off"}, None
    routes = Routes(job, value)
    job = routes.with_observed()
    tolerance = allowed_error(job)
    probes = ProbeProducts(routes, tolerance)
    right, reason = probes.right()
    left, left_reason = probes.left()
    tolerance = max(tolerance, routes.uncertainty)
    if right is None and left is None:
        return {"kind": "none", "reason": reason or left_reason}, None
    array = scipy.sparse.csr_array(
        (in_double_precision(torch.from_numpy(matrix.data)), matrix.indices, matrix.indptr),
        shape=matrix.shape,
    )
    squares = abs(array).power(2)
    largest, lines, floors, without = 0.0, 0, [], []
    for name, probe, by_lines, sums in (
        ("rows", right, array, squares.sum(axis=1)),
        ("columns", left, array.T, squares.sum(axis=0)),
    ):
        if probe is None:
            continue
        floors.append(rounding_floor(job, value, probe, tolerance))
        errors = _errors(probe, by_lines, sums, floors[-1])
        checked = errors[~np.isnan(errors)]
        lines += len(checked)
        without.append(len(errors) - len(checked))
        if checked.max(initial=0.0) > tolerance:
            raise _disagreement(name, errors, tolerance)
        largest = max(largest, float(checked.max(initial=0.0)))
    figures = {
        "kind": "probe",
        "lines_checked": lines,
        # Rows alone, or columns alone, cover all entries.
        "lines_without_finite_product": min(without),
        "largest_relative_error": largest,
        "tolerance": tolerance,
        **precision_figures(job),
    }
    return figures, probes_for_the_file(right, left, tolerance, max(floors))


def _errors(probe: Probe, by_lines: Any, squares: np.ndarray, floor: float) -> np.ndarray:
    """Return the error of each line, as of a block; NaN where there is no finite product."""
    vector, expected = in_double_precision(probe.vector), in_double_precision(probe.product)
    with np.errstate(all="ignore"):
        product = by_lines @ vector
        norms = np.sqrt(squares) * np.linalg.norm(vector)
    typical = root_mean_square([probe.product]) + floor
    given, other = torch.from_numpy(product), torch.from_numpy(expected)
    return line_errors(given, other, torch.from_numpy(norms), typical).numpy()


def _disagreement(name: str, errors: np.ndarray, tolerance: float) -> JobError:
    worst = int(np.nanargmax(errors))
    return JobError(
        f"{int((errors > tolerance).sum())} {name} of the sparse matrix, such as {worst}, disagree "
        f"with an independent product by up to {errors[worst]:.1e} (tolerance {tolerance:.1e}): "
        "the pattern may be that of other branches of the function. sparsity=none computes the "
        "dense matrix; the products are kept"
    )
