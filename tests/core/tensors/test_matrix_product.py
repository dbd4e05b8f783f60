"""Products of matrices agree with double precision, by either library."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from autodiff_core import blocks
from autodiff_core._tensors.matrix_product import MANY_TERMS, matrix_product

LARGE = (384, 96, 80)
SMALL = (4, 3, 5)


def drawn(n: int, m: int) -> Tensor:
    generator = torch.Generator().manual_seed(n * m)
    return torch.randn(n, m, generator=generator)


LAYOUTS = {
    "rows side by side": lambda n, m: drawn(n, m),
    "columns side by side": lambda n, m: drawn(m, n).mT,
    "rows with gaps": lambda n, m: drawn(n, m + 40)[:, :m],
    "columns with gaps": lambda n, m: drawn(m, n + 40)[:, :n].mT,
    "every other element": lambda n, m: drawn(n, 2 * m)[:, ::2],
    "one row repeated": lambda n, m: drawn(1, m).expand(n, m),
    "one column repeated": lambda n, m: drawn(n, 1).expand(n, m),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_agrees_with_double_precision(layout: str, size: tuple[int, int, int]):
    n, k, m = size
    assert math.prod(SMALL) < MANY_TERMS <= math.prod(LARGE)
    for first, second in ((layout, "rows side by side"), ("rows side by side", layout)):
        rows, matrix = LAYOUTS[first](n, k), LAYOUTS[second](k, m)
        expected = rows.double() @ matrix.double()
        scale = rows.double().abs() @ matrix.double().abs()
        error = (matrix_product(rows, matrix) - expected).abs() / scale
        assert error.max() < k * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_stacks_of_rows_in_any_order_of_memory(order: tuple[int, ...]):
    shape = [12, 8, 4]
    stored = drawn(math.prod(shape), 96).view(*(shape[dim] for dim in order), 96)
    rows, matrix = stored.permute(*(order.index(dim) for dim in range(3)), 3), drawn(96, 80)
    assert rows.shape == (*shape, 96)
    product = matrix_product(rows, matrix)
    expected = (rows.double() @ matrix.double()).float()
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-4)
    # No copy into another order was made.
    lengths = [80 if dim == 3 else shape[dim] for dim in (*order, 3)]
    assert product.permute(*order, 3).is_contiguous()
    assert list(product.permute(*order, 3).shape) == lengths


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_those_of_torch(dtype: torch.dtype):
    n, k, m = LARGE
    rows, matrix = drawn(n, k).to(dtype), drawn(k, m).to(dtype)
    assert torch.equal(matrix_product(rows, matrix), rows @ matrix)


def test_nonfinite_entries_stay_nonfinite():
    n, k, m = LARGE
    rows, matrix = drawn(n, k), drawn(k, m)
    rows[3, 2], matrix[5, 7] = math.nan, math.inf
    given, expected = matrix_product(rows, matrix), rows @ matrix
    assert torch.equal(torch.isnan(given), torch.isnan(expected))
    assert torch.equal(torch.isinf(given), torch.isinf(expected))


def test_the_same_numbers_each_time():
    n, k, m = LARGE
    rows, matrix = drawn(n, k), drawn(k, m)
    assert torch.equal(matrix_product(rows, matrix), matrix_product(rows.clone(), matrix.clone()))


def test_torch_alone_where_onednn_is_switched_off(monkeypatch: pytest.MonkeyPatch):
    n, k, m = LARGE
    rows, matrix = drawn(n, k), drawn(k, m)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert torch.equal(matrix_product(rows, matrix), rows @ matrix)


def test_a_large_product_is_compiled():
    n, k, _ = LARGE
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(k, k, generator=generator)

    def function(x: Tensor) -> Tensor:
        return torch.tanh(x @ matrix) @ matrix

    point = torch.randn(n, k, generator=generator)
    streams = {
        engine: blocks(
            function,
            point,
            operation="jacobian",
            strategy="forward-mode",
            engine=engine,
            chunk_size=4,
        )
        for engine in ("compiled", "plain")
    }
    given, expected = (stream.block(8, 12).values for stream in streams.values())
    assert streams["compiled"].engine == "compiled"
    torch.testing.assert_close(given, expected)
