"""Forward and reverse mode are compared, and a function that has two derivatives is refused."""

import random
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.autograd.functional as theirs
from torch.nn.functional import hardsigmoid, layer_norm

from autodiff_core import (
    ChangingFunctionError,
    FallbackWarning,
    MissingForwardDerivativeError,
    MissingReverseDerivativeError,
    ModesDisagreeError,
    blocks,
    jacobian,
)
from autodiff_core._linearization import nesting
from tests.core.support.cases import MATRICES, REVERSE, STRATEGIES, call, draw
from tests.core.support.custom_functions import ReversedGradient, WrongJvp

FORWARD = ("forward-loop", "forward-mode")
X = draw(3)
SQUARE = draw(3, 3, seed=3)


def _positive_definite(x):
    return torch.diag(x) + SQUARE @ SQUARE.T


def _stopped(x):
    with torch.no_grad():
        weights = x.sum()
    return weights * x


def _gradient_without_a_graph(x):
    inner = x if x.requires_grad else x.requires_grad_()
    return torch.autograd.grad((inner**3).sum(), inner)[0] * x


TWO_DERIVATIVES = {
    "cholesky_inverse": lambda x: torch.cholesky_inverse(
        torch.linalg.cholesky(_positive_definite(x))
    ),
    "triangular_solve": lambda x: torch.triangular_solve(
        x[:, None], _positive_definite(x), unitriangular=True
    )[0],
    "scatter_reduce": lambda x: torch.ones(2, dtype=x.dtype).scatter_reduce(
        0, torch.tensor([0, 0, 1]), x, "prod"
    ),
    "index_put with duplicates": lambda x: torch.zeros(2, dtype=x.dtype).index_put(
        (torch.tensor([0, 0, 1]),), x
    ),
    "a complex power": lambda x: torch.pow(x, torch.tensor(1 + 2j)).abs(),
    "a wrong jvp": WrongJvp.apply,
    "no_grad": _stopped,
    "no_grad throughout": torch.no_grad()(lambda x: 2 * x),
    "create_graph=False": _gradient_without_a_graph,
}


@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated")
@pytest.mark.parametrize("strategy", FORWARD)
@pytest.mark.parametrize("name", TWO_DERIVATIVES)
def test_forward_mode_is_refused_where_reverse_mode_gives_something_else(name, strategy):
    with pytest.raises(ModesDisagreeError, match="'reverse-loop' and 'vectorize'") as error:
        call("jacobian", TWO_DERIVATIVES[name], X, strategy)
    assert ("WrongJvp" in str(error.value)) == (name == "a wrong jvp")


@pytest.mark.parametrize("engine", ["plain", "captured"])
@pytest.mark.parametrize("name", ["no_grad", "create_graph=False"])
def test_reverse_strategies_give_the_gradient_of_autograd(name, engine):
    function = TWO_DERIVATIVES[name]
    expected = theirs.jacobian(function, X)
    stream = blocks(function, X, operation="jacobian", strategy="vectorize", engine=engine)
    torch.testing.assert_close(stream.matrix(), expected)
    torch.testing.assert_close(jacobian(function, X), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x - x.detach()).norm() + x.sum(),
        lambda x: torch.stack([x[0], x[0], x[1]]).amax(),
        lambda x: torch.linalg.eigvalsh(_positive_definite(x)),
        lambda x: layer_norm(x.float(), (3,)),
        lambda x: (x.bfloat16().sin() * x.sum()).exp(),
        lambda x: (1e-12 * x).sin() + 1,
    ],
)
def test_kinks_and_rounding_are_no_disagreement(function, strategy):
    stream = blocks(function, X, operation="jacobian", strategy=strategy, engine="plain")
    expected = theirs.jacobian(function, X).reshape(stream.shape)
    torch.testing.assert_close(stream.matrix(), expected.to(stream.dtype), rtol=1e-2, atol=1e-6)


def _threaded(x):
    with ThreadPoolExecutor(2) as pool:
        return torch.cat(list(pool.map(lambda factor: (factor * x).sin(), [1, 2])))


def _determinant_at_the_identity(x):
    return torch.linalg.det(torch.eye(3, dtype=x.dtype) + torch.diag(x - X)) ** 2


@pytest.mark.parametrize("engine", ["plain", "auto"])
@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
def test_batches_are_compared_with_products_outside_of_transformations(strategy, engine):
    options = {"strategy": strategy, "engine": engine}
    given = blocks(_threaded, X, operation="jacobian", **options).matrix()
    torch.testing.assert_close(given, torch.cat([torch.diag(f * (f * X).cos()) for f in (1, 2)]))
    given = blocks(_determinant_at_the_identity, X, operation="hessian", **options).matrix()
    torch.testing.assert_close(given, 4 * torch.ones_like(given) - 2 * torch.eye(3))


class _Counter:
    def __init__(self, steady_calls=0):
        self.calls = -steady_calls

    def __call__(self, x):
        self.calls += 1
        return x.sin(), x * max(self.calls, 1)


CHANGING = {
    "a counter": _Counter,
    "numpy": lambda: lambda x: (x, x * float(np.random.rand())),
    "random": lambda: lambda x: (x, x * random.random()),
    "a generator": lambda: (
        lambda generator: lambda x: (x, x * torch.rand((), generator=generator))
    )(torch.Generator()),
}


@pytest.mark.parametrize("strategy", FORWARD)
@pytest.mark.parametrize("name", CHANGING)
def test_a_function_that_changes_is_refused(name, strategy):
    with pytest.raises(
        ChangingFunctionError, match=r"different value on each call.*output 1"
    ) as caught:
        call("jacobian", CHANGING[name](), X, strategy)
    # A reader of causes would follow them in a circle.
    assert caught.value.__cause__ is not caught.value


@pytest.mark.parametrize("strategy", FORWARD)
def test_a_function_that_changes_later_is_refused(strategy):
    stream = blocks(
        _Counter(steady_calls=8),
        draw(20),
        operation="jacobian",
        strategy=strategy,
        chunk_size=2,
        engine="plain",
    )
    with pytest.raises(ChangingFunctionError, match="output 1"):
        list(stream)


@pytest.mark.parametrize("strategy", FORWARD)
def test_without_reverse_mode_there_is_a_note(strategy):
    class OneWay(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x**2

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_forward(*inputs)

        @staticmethod
        def jvp(ctx, tangent):
            return 2 * ctx.saved_tensors[0] * tangent

    with pytest.warns(FallbackWarning, match="not compared with reverse mode"):
        given = call("jacobian", OneWay.apply, X, strategy)
    torch.testing.assert_close(given, torch.diag(2 * X))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_where_no_strategy_works_no_error_points_at_another(strategy):
    errors = (MissingForwardDerivativeError, MissingReverseDerivativeError)
    with pytest.raises(errors, match="no strategy can differentiate") as error:
        call("hessian", lambda x: (hardsigmoid(x) ** 2).sum(), X, strategy)
    assert not re.search("reverse-loop|vectorize|forward-mode|forward-loop", str(error.value))


@pytest.mark.parametrize("strategy", REVERSE)
def test_a_reversed_gradient(strategy):
    given = call("jacobian", lambda x: ReversedGradient.apply(x.sin()), X, strategy)
    torch.testing.assert_close(given, -torch.diag(X.cos()))
    with pytest.raises(RuntimeError, match="not the derivative of its forward"):
        call("hessian", lambda x: (ReversedGradient.apply(x.sin()) ** 2).sum(), X, strategy)


def test_threads_take_turns_in_forward_mode():
    def derivative(number):
        strategy = FORWARD[number % 2]
        function = lambda x: (number * x).sin() * x.sum()  # noqa: E731
        given = [call("jacobian", function, X, strategy) for _ in range(5)]
        return [torch.allclose(each, theirs.jacobian(function, X)) for each in given]

    with ThreadPoolExecutor(8) as pool:
        assert all(map(all, pool.map(derivative, range(8))))


def test_a_thread_of_the_function_itself_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(nesting, "_LONGEST_WAIT", 0.1)

    def function(x):
        with ThreadPoolExecutor(1) as pool:
            return x * pool.submit(call, "jacobian", torch.sin, X, "forward-loop").result().sum()

    with pytest.raises(MissingForwardDerivativeError, match="one level of it for a whole process"):
        call("jacobian", function, X, "forward-loop")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
def test_under_inference_mode_derivatives_are_those_without(operation, strategy):
    def function(x):
        values = (x**3).cumsum(0)
        return values if operation == "jacobian" else values.sum()

    with torch.inference_mode():
        point = X.clone()
        given = call(operation, function, point, strategy)
        streamed = blocks(function, point, operation=operation, strategy=strategy).matrix()
    expected = getattr(theirs, operation)(function, X)
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(streamed, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_outputs_of_inference_mode_are_refused(strategy):
    with pytest.raises(RuntimeError, match=r"output 0 .* under torch\.inference_mode\(\)"):
        call("jacobian", torch.inference_mode()(torch.sin), X, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_work_in_place_on_an_argument_with_a_history(strategy):
    point = X.clone().requires_grad_()
    given = call("jacobian", lambda x: x.mul_(2).sin(), point, strategy, create_graph=True)
    torch.testing.assert_close(given, torch.diag(2 * (2 * point).cos()))


@pytest.mark.filterwarnings("ignore:.*sparse.*")
@pytest.mark.parametrize("strategy", REVERSE)
def test_a_sparse_output_counts_as_dense(strategy):
    given = blocks(
        lambda x: (x**2).to_sparse(), X, operation="jacobian", strategy=strategy, engine="plain"
    )
    torch.testing.assert_close(given.matrix(), torch.diag(2 * X))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("function", "shape"), [(torch.sin, (0, 0)), (torch.sum, (1, 0)), (lambda x: x[:0], (0, 0))]
)
def test_empty_inputs_and_outputs_give_empty_matrices(function, shape, strategy):
    stream = blocks(function, X[:0], operation="jacobian", strategy=strategy)
    assert stream.matrix().shape == shape
    hessian = blocks(lambda x: function(x).sum(), X[:0], operation="hessian", strategy=strategy)
    assert hessian.matrix().shape == (0, 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize(
    "cut",
    [
        torch.Tensor.detach,
        lambda x: x.detach().requires_grad_().sin(),
        lambda x: torch.from_numpy(np.sin(x.detach().numpy())),
        lambda x: torch.ones(2, requires_grad=True) * 2,
    ],
)
def test_zeros_without_a_path_of_autograd_are_reported(cut, operation, strategy):
    def function(x):
        return cut(x) if operation == "jacobian" else cut(x).sum()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FallbackWarning)
        given = call(operation, function, X, strategy)
    assert any("no path from any output to any input" in str(each.message) for each in caught)
    assert not given.any()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "function", [lambda x: (x, torch.ones(2)), lambda x: x.sin()[:0], lambda x: x.view(-1)]
)
def test_a_path_to_one_output_is_enough(function, strategy):
    # Warnings are errors here.
    call("jacobian", function, X, strategy)
    call("hessian", lambda x: (2 * x).sum(), X, strategy)
