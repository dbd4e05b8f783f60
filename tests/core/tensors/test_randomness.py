"""Random functions: one seeded draw for a whole derivative, with generators restored."""

import pytest
import torch

from autodiff_core import blocks
from tests.core.support import cases
from tests.core.support.cases import STRATEGIES, call, draw

SIZE = 24


def _dropout(x):
    return torch.nn.functional.dropout(x, 0.5) * torch.ones(SIZE, dtype=x.dtype)


def _energy(x):
    return (torch.nn.functional.dropout(x, 0.5) ** 2).sum() / 8


@pytest.mark.parametrize("chunk_size", [None, 1, 5])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_line_belongs_to_the_mask_of_the_value(strategy, chunk_size):
    torch.manual_seed(1)
    x = torch.ones(SIZE, dtype=torch.float64)
    stream = blocks(_dropout, x, operation="jacobian", strategy=strategy, chunk_size=chunk_size)
    matrix = stream.matrix()
    assert torch.equal(matrix, torch.diag(stream.value))
    assert {0.0, 2.0} == set(stream.value.tolist())


@pytest.mark.parametrize("chunk_size", [None, 1, 5])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_column_of_a_hessian_belongs_to_the_mask_of_the_value(strategy, chunk_size):
    torch.manual_seed(1)
    x = torch.ones(SIZE, dtype=torch.float64)
    stream = blocks(_energy, x, operation="hessian", strategy=strategy, chunk_size=chunk_size)
    matrix = stream.matrix()
    assert torch.equal(matrix, torch.diag(matrix.diagonal()))
    assert set(matrix.diagonal().tolist()) == {0.0, 1.0}
    # The value counts the elements that dropout kept: 2² / 8 each.
    assert float(stream.value) == float(matrix.sum()) / 2


@pytest.mark.parametrize("operation", ["jvp", "hvp"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_products_belong_to_the_mask_of_the_value(operation, strategy):
    torch.manual_seed(1)
    x = torch.ones(SIZE, dtype=torch.float64)
    func = _dropout if operation == "jvp" else _energy
    value, products = call(
        operation, func, x, strategy, v=torch.eye(SIZE, dtype=x.dtype), stacked=True, chunk_size=7
    )
    assert torch.equal(products, torch.diag(products.diagonal()))
    expected = value if operation == "jvp" else products.diagonal() / 2
    assert float(expected.sum()) == float(value.sum())


@pytest.mark.parametrize("operation", cases.MATRICES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_gives_the_same_numbers_under_every_strategy(operation, strategy):
    func = _dropout if operation == "jacobian" else _energy
    torch.manual_seed(5)
    expected = cases.torch_call(operation, func, draw(SIZE))
    torch.manual_seed(5)
    given = call(operation, func, draw(SIZE), strategy)
    torch.testing.assert_close(given, expected)
    assert not torch.equal(given, call(operation, func, draw(SIZE), strategy))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("operation", cases.MATRICES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_generator_ends_where_one_evaluation_leaves_it(operation, strategy, strict):
    func = _dropout if operation == "jacobian" else _energy
    torch.manual_seed(5)
    func(draw(SIZE))
    expected = torch.rand(4)
    torch.manual_seed(5)
    call(operation, func, draw(SIZE), strategy, chunk_size=3, strict=strict)
    assert torch.equal(torch.rand(4), expected)
