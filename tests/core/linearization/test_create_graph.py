"""Differentiable results: gradcheck and gradgradcheck by finite differences."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.core.support import cases
from tests.core.support.cases import (
    MATRICES,
    PRODUCTS,
    STRATEGIES,
    STRATEGIES_OF,
    assert_same,
    call,
    draw,
)

SIX = (*MATRICES, *PRODUCTS)


def pair(x, y):
    return x.sin()[:, None] * y.exp(), (x * x).sum() * y


def scalar(x, y):
    return (x.sin() * y.exp().sum()).sum() + (x**3).sum() * (y**3).sum()


def _function(operation):
    return pair if operation in ("jacobian", "vjp", "jvp") else scalar


def _vectors(operation):
    shapes = [(2,), (2,)]
    if operation == "vjp":
        shapes = [(2, 2), (2,)]
    return tuple(draw(*shape, seed=3 + index) for index, shape in enumerate(shapes))


def _point():
    return draw(2), draw(2, seed=1)


WAYS = [
    (operation, strategy)
    for operation in SIX
    for strategy in STRATEGIES_OF.get(operation, STRATEGIES)
]


@pytest.mark.parametrize("is_grad_disabled", [False, True])
@pytest.mark.parametrize(("operation", "strategy"), WAYS)
def test_results_are_differentiable_in_inputs_and_vectors(operation, strategy, is_grad_disabled):
    func = _function(operation)

    def derivative(x, y, *vectors):
        options = {"v": vectors} if vectors else {}
        with torch.set_grad_enabled(not is_grad_disabled):
            result = call(operation, func, (x, y), strategy, create_graph=True, **options)
        return tuple(part for part in cases.leaves(result) if part.requires_grad)

    vectors = _vectors(operation) if operation in PRODUCTS else ()
    arguments = tuple(part.requires_grad_() for part in (*_point(), *vectors))
    assert derivative(*arguments)
    # Along random directions, of which one misses an error with probability zero.
    assert gradcheck(derivative, arguments, fast_mode=True)
    assert gradgradcheck(derivative, arguments, fast_mode=True)


@pytest.mark.parametrize(("operation", "strategy"), WAYS)
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_the_numbers_do_not_change(operation, strategy, chunk_size):
    func = _function(operation)
    options = {"v": _vectors(operation)} if operation in PRODUCTS else {}
    point = tuple(part.requires_grad_() for part in _point())
    expected = cases.torch_call(operation, func, point, create_graph=True, **options)
    given = call(
        operation, func, point, strategy, create_graph=True, chunk_size=chunk_size, **options
    )
    assert_same(given, expected)
    wanted = [part.requires_grad for part in cases.leaves(expected)]
    assert [part.requires_grad for part in cases.leaves(given)] == wanted
    loss = torch.stack([(part**2).sum() for part in cases.leaves(given)]).sum()
    other = torch.stack([(part**2).sum() for part in cases.leaves(expected)]).sum()
    assert_same(torch.autograd.grad(loss, point), torch.autograd.grad(other, point), 1e-9)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_third_derivatives_by_nesting(strategy):
    def gradient_norm(x):
        return call("jacobian", lambda y: (y**4).sum(), x, strategy, create_graph=True).sum()

    given = call("hessian", gradient_norm, draw(3), "reverse-loop")
    assert_same(given, torch.diag(24 * draw(3)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
def test_without_it_there_is_no_graph_even_if_the_input_has_one(operation, strategy):
    x = draw(3).requires_grad_().exp()
    result = call(operation, lambda y: (y**3).sum(), x, strategy)
    assert not result.requires_grad


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_captured_parameters_keep_their_graph(strategy):
    w = draw(3, seed=5).requires_grad_()
    result = call("jacobian", lambda x: w * x.sin(), draw(3), strategy, create_graph=True)
    (gradient,) = torch.autograd.grad(result.sum(), w)
    assert_same(gradient, draw(3).cos())
