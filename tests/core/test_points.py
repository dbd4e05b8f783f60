"""Many points: the whole derivative at each of them."""

import warnings

import pytest
import torch

from autodiff_core import FallbackWarning, blocks
from tests.core.support import cases
from tests.core.support.cases import CHUNK_SIZES, STRATEGIES, assert_same, call, draw

COUNT = 4


def _vector(x, y):
    return x.sin()[:, None] * y, (x * x).sum()


def _scalar(x, y):
    return (x**3).sum() * (y**2).sum()


FUNCTIONS = {"jacobian": _vector, "hessian": _scalar}


def _inputs():
    return draw(COUNT, 3), draw(COUNT, 2)


def _one_by_one(operation, inputs):
    results = [
        cases.torch_call(operation, FUNCTIONS[operation], point)
        for point in zip(*inputs, strict=True)
    ]
    return tuple(
        tuple(torch.stack(entries) for entries in zip(*lines, strict=True))
        for lines in zip(*results, strict=True)
    )


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", FUNCTIONS)
def test_every_point_has_its_own_derivative(operation, strategy, chunk_size):
    given = call(
        operation, FUNCTIONS[operation], _inputs(), strategy, points=True, chunk_size=chunk_size
    )
    assert_same(given, _one_by_one(operation, _inputs()))


@pytest.mark.parametrize("is_batched", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_arguments_that_are_not_differentiated_are_those_of_each_point(strategy, is_batched):
    (x, y), label = _inputs(), torch.tensor([2, 0, 1, 2])

    def func(label, x, y):
        label += 1  # a copy
        weight = x[label - 1] if is_batched else x[int(label) - 1]
        return weight * y.exp()

    given = blocks(
        func,
        (label, x, y),
        operation="jacobian",
        strategy=strategy,
        argnums=(1, 2),
        points=True,
    ).matrix()
    assert label.tolist() == [2, 0, 1, 2]
    for number, of_point in enumerate(given):
        weights = torch.zeros(2, 3, dtype=x.dtype)
        weights[:, label[number]] = y[number].exp()
        scaled = torch.diag(x[number, label[number]] * y[number].exp())
        assert_same(of_point, torch.cat([weights, scaled], dim=1))


def test_constants_of_other_numbers_of_points_are_refused():
    x, label = draw(COUNT, 3), torch.zeros(2)
    with pytest.raises(RuntimeError, match=r"leading dimension 4 .* is \(2,\)"):
        blocks(torch.mul, (x, label), operation="jacobian", argnums=0, points=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_function_that_cannot_be_batched_is_looped_with_a_warning(strategy):
    def func(x):
        return x.sin() * x.detach().sum().item()

    x = draw(COUNT, 3)
    with pytest.warns(FallbackWarning, match="one point at a time"):
        given = call("jacobian", func, x, strategy, points=True)
    expected = torch.stack([cases.torch_call("jacobian", func, point) for point in x])
    assert_same(given, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_data_dependent_branches_are_taken_point_by_point(strategy):
    def func(x):
        return x.sin() if x.sum() > 2 else x.cos()

    x = torch.stack([draw(3), 3 * draw(3)])
    stream = blocks(func, x, operation="jacobian", strategy=strategy, points=True)
    (block,) = list(stream)
    assert any(fallback.instead == "one point at a time" for fallback in block.fallbacks)
    assert_same(block.values[0], torch.diag(-x[0].sin()))
    assert_same(block.values[1], torch.diag(x[1].cos()))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_function_that_works_in_place(strategy):
    def func(x):
        x.mul_(x.detach() + 1)
        return x.sin()

    x = draw(COUNT, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autodiff_core._functional._warn", lambda fallback: None)
        given = call("jacobian", func, x, strategy, points=True)
    assert_same(given, torch.diag_embed((x * (x + 1)).cos() * (x + 1)))
    assert torch.equal(x, draw(COUNT, 3))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", FUNCTIONS)
def test_the_matrix_has_shape_points_rows_columns(operation, strategy):
    stream = blocks(
        FUNCTIONS[operation],
        _inputs(),
        operation=operation,
        strategy=strategy,
        points=True,
        chunk_size=2,
    )
    sizes = (7, 5) if operation == "jacobian" else (5, 5)
    matrix = stream.matrix()
    assert matrix.shape == (COUNT, *sizes)
    rows = (6, 1) if operation == "jacobian" else (3, 2)
    for index, point in enumerate(zip(*_inputs(), strict=True)):
        tree = cases.torch_call(operation, FUNCTIONS[operation], point)
        assert_same(matrix[index], cases.matrix_of(tree, rows, (3, 2)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_differentiable_results(strategy):
    x = draw(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: call("jacobian", lambda p: p**3, x, strategy, points=True, create_graph=True), x
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_point(strategy):
    x = draw(1, 3)
    assert_same(call("jacobian", torch.sin, x, strategy, points=True), torch.diag(x[0].cos())[None])


def dropped(x):
    return torch.nn.functional.dropout(x, 0.5)


def noisy(x):
    return x * torch.rand_like(x)


def noisy_in_a_loop(x):
    return x * (2 * torch.bernoulli(torch.full_like(x, 0.5)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("func", [dropped, noisy, noisy_in_a_loop])
def test_each_point_draws_the_random_numbers_that_it_draws_by_itself(func, strategy):
    x = draw(3, 6)
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        given = call("jacobian", func, x, strategy, points=True)
    for point, matrix in zip(x, given, strict=True):
        torch.manual_seed(0)
        assert_same(matrix, call("jacobian", func, point, strategy))
