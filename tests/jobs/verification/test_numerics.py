"""A block is judged alike while it is computed, by torch, and later in its file, by numpy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from autodiff_core import Axis, Block
from jobs.verification.numerics import (
    Probe,
    in_double_precision,
    largest_line_error,
    line_errors,
    root_mean_square,
    rounding_floor,
)
from jobs.verification.probe_check import ProbeCheck
from outputs._scanning.relative_errors import relative_errors

LINES, ACROSS, FLOOR = 40, 30, 1e-3
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def drawn(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


def case(dtype: torch.dtype, special: str) -> tuple[Tensor, Tensor, Tensor]:
    """Lines, a probe vector and the expected products, with errors planted in some lines."""
    values = drawn(dtype, LINES, ACROSS)
    vector = drawn(dtype.to_real(), ACROSS)
    expected = values @ vector.to(dtype)
    expected[3] *= 1.5
    expected[4] += 1e-3
    if special == "zeros":
        values[5], expected[5] = 0, 0
        values[6], expected[7] = 0, 0
    elif special == "line not finite":
        values[5, 2], values[6, 1], values[7, 0] = math.nan, math.inf, -math.inf
    elif special == "product not finite":
        expected[5], expected[6], expected[7] = math.nan, math.inf, -math.inf
    elif special == "neither finite":
        values[5, 2], values[6, 1] = math.nan, math.inf
        expected[5], expected[6] = math.nan, math.inf
    elif special == "all cancel":
        values *= 1e-12
        expected = torch.zeros_like(expected)
    return values, vector, expected


def by_torch(values: Tensor, vector: Tensor, expected: Tensor) -> tuple[Tensor, Any]:
    product = values @ vector.to(values.dtype)
    norms = torch.linalg.vector_norm(values, dim=1) * torch.linalg.vector_norm(vector)
    typical = root_mean_square([expected]) + FLOOR
    return product, (expected, norms, typical)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "special",
    ["none", "zeros", "line not finite", "product not finite", "neither finite", "all cancel"],
)
def test_torch_and_numpy_find_the_same_errors(dtype: torch.dtype, special: str) -> None:
    values, vector, expected = case(dtype, special)
    product, others = by_torch(values, vector, expected)
    found = line_errors(product, *others).double().numpy()

    wide = in_double_precision(values)
    with np.errstate(all="ignore"):
        given = wide @ in_double_precision(vector)
        squares = (np.abs(wide) ** 2).sum(axis=1)
    probe, reference = in_double_precision(vector), in_double_precision(expected)
    of_file = relative_errors(given, reference, squares, probe, FLOOR)

    np.testing.assert_array_equal(np.isnan(found), np.isnan(of_file))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(of_file))
    checked = np.isfinite(found)
    rounding = 16 * torch.finfo(dtype).eps
    np.testing.assert_allclose(found[checked], of_file[checked], rtol=1e-4, atol=rounding)
    largest = float(np.nanmax(found))
    assert largest_line_error(product, *others) == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize("axis", list(Axis))
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_check_reports_the_largest_of_them(dtype: torch.dtype, axis: Axis) -> None:
    values, vector, expected = case(dtype, "none")
    product, others = by_torch(values, vector, expected)
    check = ProbeCheck(Probe(vector, expected), None, None, 0.0, FLOOR, is_product=False)
    block = Block(axis, 0, LINES, (values,), dtype)
    assert check.error(block) == pytest.approx(largest_line_error(product, *others), rel=1e-5)


def test_without_any_finite_product_there_is_no_error() -> None:
    nothing = torch.full((3,), math.nan)
    assert largest_line_error(torch.ones(3), nothing, torch.ones(3), 0.0) == 0.0


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e25), (torch.float64, 1e200)])
def test_large_entries_do_not_hide_an_error(dtype: torch.dtype, size: float) -> None:
    values, vector, expected = case(dtype, "none")
    product, others = by_torch(size * values, vector, size * expected)
    assert largest_line_error(product, *others) > 0.1
    large = in_double_precision(size * values)
    given, reference = in_double_precision(product), in_double_precision(size * expected)
    with np.errstate(over="ignore"):
        of_file = relative_errors(given, reference, (large**2).sum(1), in_double_precision(vector))
    # A line whose square overflows is not checked in the file, which says so.
    assert np.isnan(of_file).all() if dtype == torch.float64 else of_file[3] > 0.01


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1.0, 1e200, 1e308])
def test_the_root_mean_square_of_any_size(size: float) -> None:
    tensors = [torch.full((3,), size, dtype=torch.float64), torch.tensor([math.inf, math.nan])]
    assert root_mean_square(tensors) == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize(
    ("point", "function"),
    [(1e-200, "(x * 1e250).sum()"), (1e300, "(x**3).sum()"), (3.0, "(200 * x).exp().sum()")],
)
@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
def test_near_overflow_a_floor_is_finite(
    directory: Path, resolved: Any, operation: str, point: float, function: str
) -> None:
    (directory / "own.py").write_text(f"def f(x): return {function}\n")
    job = resolved(
        f"op={operation}",
        "function=python",
        "function.target=./own.py:f",
        "inputs=constants",
        f"inputs.values.x=[{point},{point}]",
    )
    ones = torch.ones(2, dtype=torch.float64)
    value = job.function.function(*job.point.values())
    floor = rounding_floor(job, value, Probe(ones, ones), 1e-8)
    assert math.isfinite(floor)
    assert floor >= 0
