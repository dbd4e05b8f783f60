"""Triangular systems solved by products agree with float64 and with torch's substitution."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from autodiff_core import blocks
from autodiff_core._tensors import triangular
from autodiff_core._tensors.triangular import LARGEST_INVERTED, TriangularSystem


def factor(size: int) -> Tensor:
    """Return a lower triangular matrix like those of Cholesky factorizations."""
    generator = torch.Generator().manual_seed(size)
    drawn = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.linalg.cholesky(
        0.1 * drawn @ drawn.T / size + torch.eye(size, dtype=torch.float64)
    )


@pytest.fixture(autouse=True)
def by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use products for any dtype, number of right-hand sides and build of torch."""
    for name in ("SMALLEST", "FEWEST", "MANY_ELEMENTS"):
        monkeypatch.setattr(triangular, name, 1)
    monkeypatch.setattr(triangular, "has_fast_product", lambda matrix: True)


@pytest.mark.parametrize("size", [1, 2, LARGEST_INVERTED, LARGEST_INVERTED + 1, 700])
@pytest.mark.parametrize("is_lower", [True, False])
@pytest.mark.parametrize("has_unit_diagonal", [True, False])
@pytest.mark.parametrize("is_by_rows", [True, False])
def test_solutions_equal_those_of_substitution(
    size: int, is_lower: bool, has_unit_diagonal: bool, is_by_rows: bool
) -> None:
    matrix = factor(size)
    if has_unit_diagonal:
        # Ones on the diagonal would make the rest of the matrix far worse conditioned.
        matrix = matrix / size
    # The other half must not be read.
    spoilt = matrix.where(torch.ones_like(matrix).tril().bool(), torch.nan)
    if not is_lower:
        matrix, spoilt = matrix.T.contiguous(), spoilt.T.contiguous()
    columns = torch.randn(size, 30, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.linalg.solve_triangular(
        matrix, columns, upper=not is_lower, unitriangular=has_unit_diagonal
    )
    system = TriangularSystem(spoilt, is_lower=is_lower, has_unit_diagonal=has_unit_diagonal)
    assert system._products(30)
    kept = columns.clone()
    found = system.solve_rows(columns.T).T if is_by_rows else system.solve(columns)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    assert torch.equal(columns, kept)


def kernel_factor(size: int, noise: float) -> Tensor:
    """Return the Cholesky factor of the covariance of neighbouring points with noise."""
    points = torch.rand(size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    distances = (points[:, None] - points) * size / 6
    covariances = torch.exp(-(distances**2)) + noise * torch.eye(size, dtype=torch.float64)
    return torch.linalg.cholesky(covariances)


@pytest.mark.parametrize("size", [100, 500])
@pytest.mark.parametrize("noise", [10.0, 1e-1, 1e-3, 1e-5, 1e-6])
def test_rounding_is_no_larger_than_that_of_substitution(size: int, noise: float) -> None:
    """Also for right-hand sides that a badly conditioned matrix has made."""
    matrix = kernel_factor(size, noise).float()
    drawn = torch.randn(size, 300, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for columns in (drawn.float(), (matrix.double() @ (matrix.double().T @ drawn)).float()):
        exact = torch.linalg.solve_triangular(matrix.double(), columns.double(), upper=False)
        substituted = torch.linalg.solve_triangular(matrix, columns, upper=False)
        found = TriangularSystem(matrix, is_lower=True, has_unit_diagonal=False).solve(columns)
        assert (found - exact).norm() <= 4 * (substituted - exact).norm()


def test_badly_conditioned_systems_are_solved_by_substitution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(triangular, "SMALLEST", 16)
    good, bad = kernel_factor(300, 10.0), kernel_factor(300, 1e-6)
    assert TriangularSystem(good, is_lower=True, has_unit_diagonal=False)._products(300)
    assert not TriangularSystem(bad, is_lower=True, has_unit_diagonal=False)._products(300)


@pytest.mark.parametrize("strategy", ["forward-mode", "vectorize"])
def test_programs_solve_large_systems_by_products(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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


_FACTOR = factor(6)
BY_ONE_INVERSE = {
    "columns": lambda x: torch.linalg.solve_triangular(
        _FACTOR.to(x) * (1 + x[0].square().mean()), x.sin(), upper=False
    ),
    "rows": lambda x: torch.linalg.solve_triangular(
        _FACTOR.mT.to(x) + x[:1, :1] * torch.eye(6).to(x), x[:3].exp(), upper=True, left=False
    ),
    "one-hot vectors": lambda x: torch.linalg.solve_triangular(_FACTOR.to(x), x, upper=False),
    "a batch of one": lambda x: torch.linalg.solve_triangular(
        _FACTOR.to(x)[None], x.cos()[None], upper=False
    ),
    "one matrix for a batch": lambda x: torch.linalg.solve_triangular(
        _FACTOR.to(x)[None], torch.stack([x.cos(), x]), upper=False
    ),
}


@pytest.mark.parametrize("strategy", ["forward-mode", "vectorize"])
@pytest.mark.parametrize("name", BY_ONE_INVERSE)
def test_programs_multiply_by_the_inverse_of_a_small_system(
    name: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: TriangularSystem, right: Tensor) -> Tensor:
        raise AssertionError("not by a product with the inverse")

    for method in ("solve", "solve_rows"):
        monkeypatch.setattr(TriangularSystem, method, refused)
    function = BY_ONE_INVERSE[name]
    x = torch.linspace(0.5, 1.5, 36, dtype=torch.float64).reshape(6, 6)
    expected = torch.func.jacrev(function)(x)
    stream = blocks(function, x, operation="jacobian", strategy=strategy, engine="captured")
    found = stream.matrix()
    assert stream.engine == "captured", stream.engine_refusal
    torch.testing.assert_close(found, expected.reshape(found.shape), rtol=1e-11, atol=1e-12)
