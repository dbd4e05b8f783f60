"""Misuse raises the exception type that torch raises, with a message that says what is valid."""

import pytest
import torch

import autodiff_core
from autodiff_core import blocks
from tests.core.support import cases
from tests.core.support.cases import MATRICES, PRODUCTS, STRATEGIES, draw

SIX = (*MATRICES, *PRODUCTS)
SECOND_ORDER = ("hessian", "vhp", "hvp")


def cube(*inputs):
    return sum((x**3).sum() for x in inputs)


X, V = draw(3), draw(3, seed=1)

# operations, function, inputs, keywords of both packages, words of the message
MISUSES = {
    "inputs no tensor": (SIX, cube, 3.0, {}, ["inputs", "float", "Tensor"]),
    "an input no tensor": (SIX, cube, (X, 3.0), {}, ["inputs[1]", "float", "Tensor"]),
    "output no tensor": (SIX, lambda x: 3.0, X, {"v": V}, ["output", "float", "Tensor"]),
    "an output no tensor": (SIX, lambda x: (x.sum(), "a"), X, {"v": V}, ["output", "[1]", "str"]),
    "v no tensor": (PRODUCTS, cube, X, {"v": 3.0}, ["v", "float", "Tensor"]),
    "v missing": (("jvp", "vhp", "hvp"), cube, X, {}, ["v is missing", "input"]),
    "v missing for outputs": (("vjp",), torch.sin, X, {}, ["v is missing", "output"]),
    "v too long": (PRODUCTS, cube, X, {"v": (V, V)}, ["v holds 2", "1"]),
    "v of the wrong size": (PRODUCTS, cube, X, {"v": draw(2)}, ["v[0]", "(2,)"]),
    "v of another rank": (PRODUCTS, cube, X, {"v": draw(1, 3)}, ["v[0]", "(1, 3)"]),
    "two outputs": (SECOND_ORDER, lambda x: (x.sum(), x.sum()), X, {"v": V}, ["2", "one tensor"]),
    "no scalar": (SECOND_ORDER, torch.sin, X, {"v": V}, ["(3,)", "one element"]),
    "a scalar in a tuple": (SECOND_ORDER, lambda x: (x.sum(),), X, {"v": V}, ["nested"]),
    "integer input": (SIX, lambda x: x * 1.0, torch.arange(3), {"v": V}, ["int64", "floating"]),
    "unknown strategy": (("jacobian",), cube, X, {"strategy": "upward"}, ["upward", "valid"]),
    "unknown outer strategy": (
        ("hessian",),
        cube,
        X,
        {"outer_jacobian_strategy": "upward"},
        ["outer_jacobian_strategy", "upward", "valid"],
    ),
}
ROWS = [(name, operation) for name, row in MISUSES.items() for operation in row[0]]


@pytest.mark.parametrize(("name", "operation"), ROWS)
def test_the_type_is_that_of_torch_and_the_message_helps(name, operation):
    _, func, inputs, options, words = MISUSES[name]
    options = {key: value for key, value in options.items() if key != "v" or operation in PRODUCTS}
    # (Error is the base class of all that torch raises here.)
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        cases.torch_call(operation, func, inputs, **options)
    with pytest.raises(theirs.type) as ours:
        getattr(autodiff_core, operation)(func, inputs, **options)
    for word in (operation, *words):
        assert word in str(ours.value)


OUR_OWN = {
    "argnums out of range": ({"argnums": 2}, ValueError, ["argnums", "2"]),
    "argnums twice": ({"argnums": (0, 0)}, ValueError, ["argnums", "twice"]),
    "argnums twice from the end": ({"argnums": (1, -1)}, ValueError, ["argnums", "twice"]),
    "argnums no integer": ({"argnums": ("x",)}, TypeError, ["argnums", "'x'"]),
    "chunk_size 0": ({"chunk_size": 0}, ValueError, ["chunk_size=0", "at least 1"]),
    "chunk_size no integer": ({"chunk_size": 1.5}, ValueError, ["chunk_size=1.5"]),
    "chunk_size a bool": ({"chunk_size": True}, ValueError, ["chunk_size=True"]),
    "has_aux without a pair": ({"has_aux": True}, TypeError, ["has_aux", "pair"]),
}


@pytest.mark.parametrize("operation", SIX)
@pytest.mark.parametrize("name", OUR_OWN)
def test_misuse_of_what_torch_does_not_have(name, operation):
    options, kind, words = OUR_OWN[name]
    vector = {"v": (V, V)} if operation in ("jvp", "vhp", "hvp") else {}
    with pytest.raises(kind) as error:
        getattr(autodiff_core, operation)(cube, (X, X), **vector, **options)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("operation", ["vjp", "vhp"])
@pytest.mark.parametrize("strategy", ["forward-loop", "forward-mode"])
def test_a_pullback_has_no_forward_strategy(operation, strategy):
    with pytest.raises(ValueError, match=f"{operation}.*{strategy}.*reverse-loop"):
        getattr(autodiff_core, operation)(cube, X, V, strategy=strategy)


@pytest.mark.parametrize("operation", PRODUCTS)
def test_an_unknown_strategy_of_a_product(operation):
    with pytest.raises(ValueError, match=f"{operation}.*upward.*forward-mode"):
        getattr(autodiff_core, operation)(cube, X, V, strategy="upward")


@pytest.mark.parametrize("operation", PRODUCTS)
def test_stacked_vectors_of_the_wrong_size(operation):
    func = torch.sin if operation in ("vjp", "jvp") else cube
    for wrong in (draw(2, 4), draw(3), draw(1)[0]):
        with pytest.raises(RuntimeError, match=rf"{operation}.*v\[0\].*\(vectors, 3\)"):
            getattr(autodiff_core, operation)(func, X, wrong, stacked=True)


def test_stacks_of_different_length():
    with pytest.raises(RuntimeError, match="vectors"):
        autodiff_core.jvp(cube, (X, X), (draw(2, 3), draw(4, 3)), stacked=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
def test_points_of_different_number(operation, strategy):
    for inputs in ((draw(2, 3), draw(3, 3)), (draw(2, 3), draw(1)[0]), (draw(0, 3), draw(0, 3))):
        with pytest.raises(RuntimeError, match=f"{operation}.*points=True.*leading"):
            cases.call(operation, cube, inputs, strategy, points=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_points_of_functions_that_are_not_scalar(strategy):
    with pytest.raises(RuntimeError, match=r"hessian.*\(3,\).*one element"):
        cases.call("hessian", torch.sin, draw(2, 3), strategy, points=True)


BLOCK_MISUSES = {
    "operation": ({"operation": "gradient"}, "gradient.*jacobian"),
    "strategy": ({"strategy": "auto"}, "auto.*forward-mode"),
    "chunk_size": ({"chunk_size": 0}, "chunk_size=0"),
    "rows beyond": ({"rows": range(2, 5)}, "rows=.*range"),
    "rows with a step": ({"rows": range(0, 3, 2)}, "rows=.*step"),
    "rows before": ({"rows": range(-1, 2)}, "rows=.*range"),
    "columns beyond": ({"columns": range(4)}, "columns=.*range"),
    "vectors for a matrix": ({"vectors": V}, "vectors"),
    "no vectors": ({"operation": "jvp"}, "vectors"),
    "rows of a product": ({"operation": "jvp", "vectors": V[None], "rows": range(1)}, "rows"),
    "points of a product": ({"operation": "jvp", "vectors": V[None], "points": True}, "points"),
}


@pytest.mark.parametrize("name", BLOCK_MISUSES)
def test_misuse_of_blocks(name):
    options, text = BLOCK_MISUSES[name]
    with pytest.raises(ValueError, match=text):
        blocks(torch.sin, X, **{"operation": "jacobian", **options})


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (1, 1), (2, 1), (0, 4), (3, 4)])
def test_a_block_outside_the_matrix(start, stop):
    with pytest.raises(ValueError, match="within 0 to 3"):
        blocks(torch.sin, X, operation="jacobian").block(start, stop)
