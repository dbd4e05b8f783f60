"""The six operations equal those of torch, and analytic derivatives."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from autodiff_core import ModesDisagreeError
from tests.core.support import cases
from tests.core.support.cases import (
    CASES,
    MATRICES,
    PRODUCTS,
    STRATEGIES,
    STRATEGIES_OF,
    assert_same,
    call,
    draw,
)

# Some cases have no derivative at all.
pytestmark = pytest.mark.filterwarnings("ignore:.*no path from any output to any input")

MATRIX_CASES = [(op, name) for op in MATRICES for name in cases.table(op)]
PRODUCT_CASES = [(op, name) for op in PRODUCTS for name in cases.table(op)]


def _tolerance(name: str) -> float:
    return 1e-5 if name == "float32" else 1e-10


def _vectors(operation: str, func: Any, point: Any) -> Any:
    space = point
    if operation == "vjp":
        space = func(*point) if isinstance(point, tuple) else func(point)
    made = tuple(
        draw(*part.shape, dtype=part.dtype, seed=7 + index)
        for index, part in enumerate(cases.leaves(space))
    )
    return made if isinstance(space, tuple) else made[0]


@pytest.mark.parametrize("chunk_size", cases.CHUNK_SIZES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("operation", "name"), MATRIX_CASES)
def test_a_matrix_equals_that_of_torch(operation, name, strategy, chunk_size):
    case = cases.table(operation)[name]
    given = call(operation, case.func, case.point(), strategy, chunk_size=chunk_size)
    expected = cases.torch_call(operation, case.func, case.point())
    if name == "not a number":
        assert all(part.isnan().diagonal().all() for part in (given, expected))
        return
    assert_same(given, expected, _tolerance(name))
    assert not any(part.requires_grad for part in cases.leaves(given))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].jacobian])
def test_a_jacobian_equals_the_analytic_one(name, strategy):
    case = CASES[name]
    point = case.point()
    assert case.jacobian is not None
    assert_same(call("jacobian", case.func, point, strategy), case.jacobian(point))


@pytest.mark.parametrize(("operation", "name"), PRODUCT_CASES)
def test_a_product_equals_that_of_torch(operation, name):
    if name == "not a number":
        pytest.skip("a product with not-a-number verifies nothing")
    case = cases.table(operation)[name]
    point = case.point()
    vector = _vectors(operation, case.func, point)
    expected = cases.torch_call(operation, case.func, point, vector)
    for strategy in STRATEGIES_OF[operation]:
        for chunk_size in (None, 1):
            given = call(operation, case.func, point, strategy, v=vector, chunk_size=chunk_size)
            assert_same(given, expected, _tolerance(name))
            assert not any(part.requires_grad for part in cases.leaves(given))


@pytest.mark.parametrize("operation", PRODUCTS)
def test_the_vector_is_optional_for_one_element(operation):
    for strategy in STRATEGIES_OF[operation]:
        given = call(operation, torch.exp, draw(1), strategy)
        assert_same(given, cases.torch_call(operation, torch.exp, draw(1)))


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_empty_tensors_give_empty_derivatives(shape, strategy):
    # torch raises an error for these.
    x = draw(*shape)
    assert call("jacobian", torch.sin, x, strategy).shape == shape * 2
    assert call("hessian", lambda x: x.sin().sum(), x, strategy).shape == shape * 2
    first, second = call("jacobian", lambda x: (x[:0], x**2), draw(3), strategy)
    assert first.shape == (0, 3)
    assert_same(second, torch.diag(2 * draw(3)))


def _mixed(x, y):
    return x.double() * y.sum(), (y.sum() * x.double().sum()).float()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_dtype_follows_the_input_in_reverse_and_the_output_forward(strategy):
    point = draw(3, dtype=torch.float32), draw(2)
    given = call("jacobian", _mixed, point, strategy)
    options = cases.keywords("jacobian", strategy)
    if strategy == "forward-loop":
        options["vectorize"] = True  # torch has forward mode only with vectorize
    expected = cases.torch_call("jacobian", _mixed, point, **options)
    assert_same(given, expected, 1e-5)
    types = [[part.dtype for part in line] for line in given]
    inputs = [torch.float32, torch.float64]
    outputs = [[torch.float64] * 2, [torch.float32] * 2]
    assert types == ([inputs] * 2 if strategy in cases.REVERSE else outputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
def test_half_precision(operation, strategy, dtype):
    x = draw(4, dtype=dtype)

    def func(x):
        return (x * x).sum() if operation == "hessian" else x * x

    expected = 2 * torch.eye(4) if operation == "hessian" else torch.diag(2 * x.float())
    given = call(operation, func, x, strategy)
    assert given.dtype == dtype
    assert_same(given.float(), expected, 1e-2)


def _works_in_place(x):
    x.mul_(x.detach() + 1)
    return x.sin()


def _works_in_place_unseen(x):
    with torch.no_grad():
        x.mul_(2)
    return x.sin()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("func", [torch.sin, _works_in_place, _works_in_place_unseen])
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("create_graph", [False, True])
def test_user_tensors_are_never_modified(func, strategy, requires_grad, create_graph):
    x, v = draw(3).requires_grad_(requires_grad), draw(3, seed=1)
    captured = draw(3, seed=2).requires_grad_()

    def scalar(x):
        return (func(x) * captured).sum()

    options: dict[str, Any] = {"create_graph": create_graph}
    calls = [("jacobian", lambda x: func(x) * captured, {}), ("hessian", scalar, {})]
    calls += [("jvp", func, {"v": v}), ("hvp", scalar, {"v": v})]
    if strategy in cases.REVERSE:
        calls += [("vjp", func, {"v": v}), ("vhp", scalar, {"v": v})]
    # Forward mode sees what works under no_grad, and so differs from reverse mode.
    differs = func is _works_in_place_unseen and strategy not in cases.REVERSE
    for operation, function, vectors in calls:
        with pytest.raises(ModesDisagreeError) if differs else nullcontext():
            call(operation, function, x, strategy, **vectors, **options)
    assert torch.equal(x, draw(3))
    assert torch.equal(v, draw(3, seed=1))
    assert torch.equal(captured, draw(3, seed=2))
    assert x.requires_grad == requires_grad
    assert not v.requires_grad
    assert x.grad is None
    assert v.grad is None
    assert captured.grad is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_function_that_works_in_place_on_its_argument(strategy):
    x = draw(3)
    given = call("jacobian", _works_in_place, x, strategy)
    assert_same(given, torch.diag((x * (x + 1)).cos() * (x + 1)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
def test_inside_no_grad(operation, strategy):
    case = cases.table(operation)["elementwise" if operation == "jacobian" else "cubic"]
    with torch.no_grad():
        given = call(operation, case.func, case.point(), strategy)
    assert_same(given, cases.torch_call(operation, case.func, case.point()))


@pytest.mark.parametrize("operation", PRODUCTS)
def test_products_inside_no_grad(operation):
    case = cases.table(operation)["elementwise" if operation in ("vjp", "jvp") else "cubic"]
    v = draw(4, seed=1)
    with torch.no_grad():
        given = [
            call(operation, case.func, case.point(), strategy, v=v)
            for strategy in STRATEGIES_OF[operation]
        ]
    expected = cases.torch_call(operation, case.func, case.point(), v)
    for result in given:
        assert_same(result, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_captured_tensor_counts_as_a_constant(strategy):
    x = draw(3).requires_grad_()
    given = call("jacobian", lambda y: y * x, x, strategy)
    assert_same(given, torch.diag(draw(3)))


class Labelled(torch.Tensor):
    """A subclass without changes."""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_tensor_subclass(strategy):
    seen = []

    def func(x):
        seen.append(type(x))
        return x.sin()

    given = call("jacobian", func, draw(3).as_subclass(Labelled), strategy)
    assert_same(given.as_subclass(torch.Tensor), torch.diag(draw(3).cos()))
    assert seen[0] is Labelled


def test_the_defaults_are_those_of_torch():
    evaluations = []

    def func(x):
        evaluations.append(x.requires_grad)
        return x.sin().sum()

    cases.torch_call("hessian", func, draw(3))
    for operation in (*MATRICES, "vjp", "vhp"):
        evaluations.clear()
        options = {} if operation in (*MATRICES, "vjp") else {"v": draw(3)}
        getattr(__import__("autodiff_core"), operation)(func, draw(3), **options)
        assert evaluations == [True]
