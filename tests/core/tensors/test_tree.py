"""Nested dictionaries, lists and dataclasses beside tuples; argnums; has_aux."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree

import autodiff_core
from tests.core.support import cases
from tests.core.support.cases import STRATEGIES, assert_same, call, draw


@dataclass
class Layer:
    weight: Tensor
    bias: Tensor


# Registered with torch as users of its pytrees do.
_pytree.register_dataclass(Layer)


def _parameters():
    return {"layer": Layer(draw(2, 3), draw(2)), "scales": [draw(2, seed=1), draw(2, seed=2)]}


def _network(parameters):
    layer, scales = parameters["layer"], parameters["scales"]
    hidden = (layer.weight @ draw(3, seed=4) + layer.bias).tanh()
    return {"out": hidden * scales[0], "energy": (hidden * scales[1]).sum()}


def _flat_network(weight, bias, first, second):
    out = _network({"layer": Layer(weight, bias), "scales": [first, second]})
    return out["out"], out["energy"]


def _flat_point():
    point = _parameters()
    return point["layer"].weight, point["layer"].bias, *point["scales"]


def _in_order(tree):
    return tree["layer"].weight, tree["layer"].bias, *tree["scales"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_jacobian_is_nested_like_outputs_and_then_inputs(strategy):
    given = call("jacobian", _network, _parameters(), strategy)
    assert list(given) == ["out", "energy"]
    assert all(isinstance(line["layer"], Layer) for line in given.values())
    assert all(isinstance(line["scales"], list) for line in given.values())
    expected = cases.torch_call("jacobian", _flat_network, _flat_point())
    assert_same(tuple(_in_order(given[name]) for name in ("out", "energy")), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_hessian_is_nested_like_inputs_twice(strategy):
    def energy(parameters):
        return _network(parameters)["energy"]

    given = call("hessian", energy, _parameters(), strategy)
    expected = cases.torch_call("hessian", lambda *p: _flat_network(*p)[1], _flat_point())
    assert_same(tuple(_in_order(line) for line in _in_order(given)), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_products_accept_and_return_nested_vectors(strategy):
    tangents = _parameters()
    value, product = autodiff_core.jvp(_network, _parameters(), tangents, strategy=strategy)
    expected = cases.torch_call("jvp", _flat_network, _flat_point(), _flat_point())
    assert_same(((value["out"], value["energy"]), (product["out"], product["energy"])), expected)
    if strategy in cases.REVERSE:
        v = {"out": draw(2), "energy": torch.tensor(2.0, dtype=torch.float64)}
        _, product = autodiff_core.vjp(_network, _parameters(), v, strategy=strategy)
        expected = cases.torch_call("vjp", _flat_network, _flat_point(), tuple(v.values()))
        assert_same(_in_order(product), expected[1])


def test_a_list_is_one_argument_and_a_tuple_is_several():
    assert_same(
        tuple(autodiff_core.jacobian(lambda pair: pair[0] * pair[1], [draw(2), draw(2)])),
        cases.torch_call("jacobian", lambda x, y: x * y, (draw(2), draw(2))),
    )


def test_the_message_names_the_path_of_a_leaf_that_is_not_a_tensor():
    with pytest.raises(TypeError, match=r"inputs\['a'\]\[1\].*int"):
        autodiff_core.jacobian(lambda tree: tree["a"][0], {"a": [draw(2), 3]})


def _three(x, n, y):
    return x**n * y.sum()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("argnums", [0, 2, -1, -3, (0,), (2, 0), (0, -1), [2]])
def test_argnums_picks_arguments_in_order(argnums, strategy):
    x, y = draw(3), draw(2)
    dx, dy = cases.torch_call("jacobian", lambda x, y: _three(x, 3, y), (x, y))
    of = {0: dx, 2: dy}
    expected = (
        of[argnums % 3] if isinstance(argnums, int) else tuple(of[number % 3] for number in argnums)
    )
    given = call("jacobian", _three, (x, 3, y), strategy, argnums=argnums)
    assert_same(given, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_argnums_of_a_hessian_and_products(strategy):
    x, y = draw(3), draw(2)

    def func(x, n, y):
        return _three(x, n, y).sum()

    expected = cases.torch_call("hessian", lambda x: func(x, 3, y), x)
    assert_same(call("hessian", func, (x, 3, y), strategy, argnums=0), expected)
    v = draw(3, seed=1)
    _, product = call("hvp", func, (x, 3, y), strategy, v=v, argnums=0)
    assert_same(product, expected @ v)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", ["jacobian", "hessian", "jvp", "hvp", "vjp", "vhp"])
def test_has_aux_gives_the_auxiliary_value_last(operation, strategy):
    if strategy not in cases.STRATEGIES_OF.get(operation, STRATEGIES):
        pytest.skip("the operation has no such strategy")
    options = {"v": draw(3)} if operation in ("jvp", "hvp", "vhp") else {}
    aux = {"note": "text", "number": 3}
    with_aux = call(
        operation, lambda x: ((x**3).sum(), aux), draw(3), strategy, has_aux=True, **options
    )
    without = call(operation, lambda x: (x**3).sum(), draw(3), strategy, **options)
    assert with_aux[-1] is aux
    rest = with_aux[0] if operation in cases.MATRICES else with_aux[:-1]
    assert_same(rest, without)
