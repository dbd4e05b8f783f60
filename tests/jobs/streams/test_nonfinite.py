"""Entries that are NaN or infinite are found wherever they stand, and none where there are none."""

import math

import pytest
import torch

from autodiff_core import Axis, Block
from jobs.streams.nonfinite import Entries, entries_not_finite


def block(values: torch.Tensor, axis: Axis = Axis.ROWS) -> Block:
    lines = values if axis is Axis.ROWS else values.T
    return Block(axis, 10, 10 + len(lines), (lines,), values.dtype)


@pytest.mark.parametrize("axis", list(Axis))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_each_is_counted_and_located(bad: float, axis: Axis) -> None:
    values = torch.ones(3, 4)
    values[1, 2], values[2, 0] = bad, -bad
    offset = (10, 0) if axis is Axis.ROWS else (0, 10)
    places = tuple((row + offset[0], column + offset[1]) for row, column in [(1, 2), (2, 0)])
    assert entries_not_finite(block(values, axis)) == Entries(2, places)


@pytest.mark.parametrize(
    ("dtype", "large"),
    [(torch.float16, 6e4), (torch.bfloat16, 3e38), (torch.float32, 3e38), (torch.float64, 1e308)],
)
def test_large_entries_are_finite_though_their_sum_is_not(dtype: torch.dtype, large: float) -> None:
    assert entries_not_finite(block(torch.full((30, 40), large, dtype=dtype))) == Entries()


def test_complex_entries_and_integers() -> None:
    values = torch.ones(2, 2, dtype=torch.complex64)
    assert entries_not_finite(block(values)) == Entries()
    values[0, 1] += torch.tensor(complex(0, math.inf))
    assert entries_not_finite(block(values)) == Entries(1, ((10, 1),))
    assert entries_not_finite(block(torch.full((2, 2), 2**62))) == Entries()
