"""Triangular systems solved by products, against float64 and against torch's own substitution."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from autodiff_core import _triangular, blocks
from autodiff_core._triangular import LARGEST_INVERTED, TriangularSystem


def factor(size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A lower triangular matrix as Cholesky factorisations give it."""
    generator = torch.Generator().manual_seed(size)
    drawn = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.linalg.cholesky(drawn @ drawn.T / size + torch.eye(size, dtype=dtype))


@pytest.mark.parametrize("size", [1, 2, LARGEST_INVERTED, LARGEST_INVERTED + 1, 700])
@pytest.mark.parametrize("is_lower", [True, False])
@pytest.mark.parametrize("has_unit_diagonal", [True, False])
@pytest.mark.parametrize("is_by_rows", [True, False])
def test_solutions_are_those_of_substitution(
    size: int, is_lower: bool, has_unit_diagonal: bool, is_by_rows: bool
) -> None:
    matrix = factor(size)
    if has_unit_diagonal:
        # Ones on the diagonal make what is left of it far worse conditioned.
        matrix = matrix / size
    # Of the other half nothing is to be read.
    spoilt = matrix.where(torch.ones_like(matrix).tril().bool(), torch.nan)
    if not is_lower:
        matrix, spoilt = matrix.T.contiguous(), spoilt.T.contiguous()
    columns = torch.randn(size, 30, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.linalg.solve_triangular(
        matrix, columns, upper=not is_lower, unitriangular=has_unit_diagonal
    )
    system = TriangularSystem(spoilt, is_lower=is_lower, has_unit_diagonal=has_unit_diagonal)
    kept = columns.clone()
    found = system.solve_rows(columns.T).T if is_by_rows else system.solve(columns)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    assert torch.equal(columns, kept)


def test_rounding_is_that_of_substitution() -> None:
    matrix = factor(900)
    columns = torch.randn(900, 300, generator=torch.Generator().manual_seed(2)).double()
    exact = torch.linalg.solve_triangular(matrix, columns, upper=False)
    system = TriangularSystem(matrix.float(), is_lower=True, has_unit_diagonal=False)
    ours = (system.solve(columns.float()) - exact).norm()
    theirs = torch.linalg.solve_triangular(matrix.float(), columns.float(), upper=False)
    assert ours <= 2 * (theirs - exact).norm()


@pytest.mark.parametrize("strategy", ["forward-mode", "vectorize"])
def test_programs_solve_by_products_where_they_are_large(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not _triangular.has_fast_product(torch.zeros(1)):
        pytest.skip("this torch comes without oneDNN")
    prepared = []
    prepare = TriangularSystem._substitution

    def watched(self: TriangularSystem, start: int, stop: int) -> Iterator[Any]:
        prepared.append(stop - start)
        return prepare(self, start, stop)

    monkeypatch.setattr(TriangularSystem, "_substitution", watched)
    size = LARGEST_INVERTED + 44
    matrix = factor(size)

    def function(x: Tensor) -> Tensor:
        scaled = matrix.to(x.dtype) + torch.diag(x)
        lower = torch.linalg.cholesky(scaled @ scaled.T)
        return torch.linalg.solve_triangular(lower, x[:, None], upper=False).sum(1)[:20]

    x = torch.linspace(0.5, 1.5, size, dtype=torch.float64)
    expected = torch.func.jacrev(function)(x)
    stream = blocks(
        function,
        x.float(),
        operation="jacobian",
        strategy=strategy,
        engine="captured",
        chunk_size=size,
    )
    torch.testing.assert_close(stream.matrix(), expected.float(), rtol=1e-3, atol=1e-4)
    assert stream.engine == "captured", stream.engine_refusal
    assert size in prepared
