"""Functions that resist differentiation never give wrong numbers, under any strategy.

The truth is central differences: of the function for Jacobians, of its gradient for Hessians.
"""

import warnings

import pytest
import torch

import autodiff_core
from autodiff_core import DoubleBackwardError, FallbackWarning, blocks
from tests.core.support import cases
from tests.core.support.cases import STRATEGIES, call, draw
from tests.core.support.custom_functions import (
    NumpyBackwardCube,
    OldStyleCube,
    PartlyNumpyBackwardCube,
    SetupContextCube,
)
from tests.core.support.outcomes import Refused
from tests.core.support.resisting import DTYPE, FUNCTIONS, sum_of_squares

# torch warns about the layout itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated"),
    # A reentrant checkpoint in forward mode.
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
]
STEP = 1e-5


def _values(func, x):
    torch.manual_seed(3)
    outputs = func(x.clone())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return torch.cat([part.detach().reshape(-1).to(DTYPE) for part in outputs])


def _gradient(func, x):
    torch.manual_seed(3)
    y = x.clone().requires_grad_()
    return torch.autograd.grad(func(y * 1), y)[0].reshape(-1)


def _differences(of, func, x):
    columns = []
    for index in range(x.numel()):
        shift = torch.zeros(x.numel(), dtype=DTYPE)
        shift[index] = STEP
        shift = shift.reshape(x.shape)
        columns.append((of(func, x + shift) - of(func, x - shift)) / (2 * STEP))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
def test_it_works_or_falls_back_or_raises(operation, name, strategy):
    row = FUNCTIONS[name]

    def make():
        return row.make() if operation == "jacobian" else sum_of_squares(row.make())

    outcome = getattr(row, operation).get(strategy)
    x = row.point()
    torch.manual_seed(3)
    if isinstance(outcome, Refused):
        with pytest.raises(outcome.kind) as error:
            call(operation, make(), x, strategy)
        for word in outcome.words:
            assert word in str(error.value)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FallbackWarning)
        given = call(operation, make(), x, strategy)
    messages = [str(w.message) for w in caught if w.category is FallbackWarning]
    assert len(messages) == (0 if outcome is None else 1)
    if outcome is not None:
        assert f"{strategy}: {outcome.instead}, because" in messages[0]
    assert torch.equal(x, row.point())
    truth = _differences(_values if operation == "jacobian" else _gradient, make(), x)
    matrix = torch.cat([part.reshape(-1, x.numel()).to(DTYPE) for part in cases.leaves(given)])
    if name == "integer output" and operation == "jacobian":
        assert not matrix[: x.numel()].any()
    torch.testing.assert_close(matrix, truth, rtol=1e-6, atol=1e-6 * float(truth.abs().max()))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_stream_carries_the_record(strategy):
    row = FUNCTIONS["cdist" if strategy == "vectorize" else "numpy round trip"]
    stream = blocks(
        row.make(),
        row.point(),
        operation="jacobian",
        strategy=strategy,
        chunk_size=2,
        engine="plain",
    )
    records = [block.fallbacks for block in stream]
    expected = 1 if row.jacobian.get(strategy) else 0
    assert [len(record) for record in records] == [expected] + [0] * (len(records) - 1)
    if expected:
        assert records[0][0].strategy == strategy
        assert records[0][0].instead == "one vector at a time"
        assert records[0][0].reason


def test_a_slow_operator_is_reported_once_for_all_chunks():
    row = FUNCTIONS["attention"]
    stream = blocks(
        row.make(),
        row.point(),
        operation="jacobian",
        strategy="vectorize",
        chunk_size=2,
        engine="plain",
    )
    assert [len(block.fallbacks) for block in stream] == [1, 0, 0]


@pytest.mark.parametrize("strategy", cases.REVERSE)
def test_the_double_backward_trick_raises_for_numpy_in_a_backward(strategy):
    with pytest.raises(DoubleBackwardError, match="forward-mode"):
        autodiff_core.jvp(NumpyBackwardCube.apply, draw(3), draw(3), strategy=strategy)


@pytest.mark.parametrize("func", [OldStyleCube, SetupContextCube, PartlyNumpyBackwardCube])
def test_the_double_backward_trick_works_where_a_backward_is_linear(func):
    x, v = draw(3), draw(3, seed=1)
    _, product = autodiff_core.jvp(func.apply, x, v)
    torch.testing.assert_close(product, 3 * x**2 * v)


@pytest.mark.parametrize("operation", ["vhp", "hvp"])
@pytest.mark.parametrize("func", [NumpyBackwardCube, PartlyNumpyBackwardCube])
def test_second_order_products_raise_for_a_backward_that_is_not_differentiable(operation, func):
    with pytest.raises(DoubleBackwardError, match=r"custom autograd\.Function"):
        getattr(autodiff_core, operation)(sum_of_squares(func.apply), draw(3), draw(3))


def _backward_inside(x):
    (x.sin() * x.roll(1)).sum().backward()
    return x.grad * x


@pytest.mark.parametrize("strategy", cases.REVERSE)
def test_backward_inside_finds_a_leaf(strategy):
    # The gradient is constant because backward() makes no graph of it.
    x = draw(3)
    given = call("jacobian", _backward_inside, x, strategy)
    gradient = x.cos() * x.roll(1) + x.roll(-1).sin()
    torch.testing.assert_close(given, torch.diag(gradient))
    assert x.grad is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_errors_of_the_function_itself_are_not_changed(strategy):
    def func(x):
        raise KeyError("of the user")

    with pytest.raises(KeyError, match="of the user"):
        call("jacobian", func, draw(3), strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_error_of_the_user_is_not_reported_as_a_missing_derivative(strategy):
    def func(x):
        raise RuntimeError("matrix is singular")

    with pytest.raises(RuntimeError, match="matrix is singular") as error:
        call("jacobian", func, draw(3), strategy)
    assert error.type is RuntimeError


@pytest.mark.parametrize("chunk_size", [2, 4, 64])
@pytest.mark.parametrize("is_joined", [False, True])
def test_a_wrong_batching_rule_is_found_even_if_the_first_chunk_does_not_use_it(
    is_joined, chunk_size
):
    def func(x):
        distances = FUNCTIONS["cdist"].make()(x).reshape(-1)
        parts = x.sin().repeat(11), distances
        return torch.cat(parts) if is_joined else parts

    x = FUNCTIONS["cdist"].point()
    with pytest.warns(FallbackWarning, match="one vector at a time"):
        given = call("jacobian", func, x, "vectorize", chunk_size=chunk_size)
    cases.assert_same(given, call("jacobian", func, x, "reverse-loop"))


def test_single_vectors_are_not_batched_and_need_no_batching_rule():
    func, x = FUNCTIONS["cdist"].make(), FUNCTIONS["cdist"].point()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        given = call("jacobian", func, x, "vectorize", chunk_size=1)
    cases.assert_same(given, call("jacobian", func, x, "reverse-loop"))


@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_compiled_functions_are_differentiated_uncompiled(operation, strategy):
    def func(x):
        values = (x.sin() * x.roll(1)).cumsum(0)
        return values if operation == "jacobian" else values.square().sum()

    x = draw(6)
    expected = getattr(torch.autograd.functional, operation)(func, x)
    given = call(operation, torch.compile(func), x, strategy)
    torch.testing.assert_close(given, expected)
