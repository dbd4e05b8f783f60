"""strict=True: a structurally zero derivative is an error, under every strategy."""

import pytest
import torch

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
SECOND_ORDER = ("hessian", "vhp", "hvp")
X, Y = draw(3), draw(2)


def dead(x, y):
    return torch.ones((), dtype=x.dtype)


def detached(x, y):
    return (x.detach() * x.detach()).sum()


def ignores_an_input(x, y):
    return (x**3).sum()


def linear(x, y):
    return x.sum() + 2 * y.sum()


def linear_in_one(x, y):
    return (x**3).sum() + y.sum()


def quadratic(x, y):
    return (x**2).sum() + (y**2).sum()


def lively(x, y):
    return (x**4).sum() * (y**4).sum()


# function, create_graph, the operations that raise an error
REFUSED = [
    (dead, False, SIX),
    (detached, False, SIX),
    (ignores_an_input, False, ("jacobian", "vjp", "hessian", "vhp", "hvp")),
    (linear, False, SECOND_ORDER),
    (linear, True, SIX),
    (linear_in_one, False, SECOND_ORDER),
    (quadratic, True, ("hessian",)),
]
ACCEPTED = [
    (lively, False, SIX),
    (lively, True, SIX),
    (linear, False, ("jacobian", "vjp", "jvp")),
    (linear_in_one, False, ("jacobian", "vjp", "jvp")),
    (quadratic, False, ("jacobian", "vjp", "jvp")),
    (quadratic, True, ("jacobian", "vjp", "jvp", "vhp", "hvp")),
]


def _rows(table):
    return [
        pytest.param(
            func, create_graph, operation, id=f"{func.__name__}-{create_graph}-{operation}"
        )
        for func, create_graph, operations in table
        for operation in operations
    ]


def _options(operation, create_graph):
    options = {"strict": True, "create_graph": create_graph}
    if operation in PRODUCTS:
        options["v"] = torch.ones((), dtype=X.dtype) if operation == "vjp" else (X + 1, Y + 1)
    return options


def _inputs(create_graph):
    return tuple(part.clone().requires_grad_(create_graph) for part in (X, Y))


@pytest.mark.parametrize(("func", "create_graph", "operation"), _rows(REFUSED))
def test_every_strategy_raises_where_torch_does(func, create_graph, operation):
    options, inputs = _options(operation, create_graph), _inputs(create_graph)
    with pytest.raises(RuntimeError):
        cases.torch_call(operation, func, inputs, **options)
    for strategy in STRATEGIES_OF.get(operation, STRATEGIES):
        with pytest.raises(RuntimeError, match=f"{operation}.*strict=True"):
            call(operation, func, inputs, strategy, **options)


@pytest.mark.parametrize(("func", "create_graph", "operation"), _rows(ACCEPTED))
def test_every_strategy_accepts_what_torch_accepts(func, create_graph, operation):
    options, inputs = _options(operation, create_graph), _inputs(create_graph)
    expected = cases.torch_call(operation, func, inputs, **options)
    for strategy in STRATEGIES_OF.get(operation, STRATEGIES):
        assert_same(call(operation, func, inputs, strategy, **options), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_message_names_output_and_input(strategy):
    def func(x, y):
        return (x * y.sum()).sum(), x.sin()

    with pytest.raises(RuntimeError, match="output 1 does not depend on input 1"):
        call("jacobian", func, (X, Y), strategy, strict=True)


@pytest.mark.filterwarnings("ignore:.*no path from any output to any input")
@pytest.mark.parametrize("func", [dead, detached, ignores_an_input, linear])
@pytest.mark.parametrize("operation", SIX)
def test_without_strict_the_derivative_is_zero(func, operation):
    options = _options(operation, False) | {"strict": False}
    expected = cases.torch_call(operation, func, (X, Y), **options)
    for strategy in STRATEGIES_OF.get(operation, STRATEGIES):
        assert_same(call(operation, func, (X, Y), strategy, **options), expected)
