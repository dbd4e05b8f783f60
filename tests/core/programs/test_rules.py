"""Every rule gives the numbers of the plain engine."""

import pytest
import torch

from autodiff_core import blocks
from autodiff_core._programs import flat, program
from tests.core.support.cases import MATRICES, assert_same, draw
from tests.core.support.operators import BATCHED, OF_A_VECTOR, OPERATORS, REFUSED

# Functions of which stacks have supports without order.
SHIFTS = [("shifts", 2**18), ("shifts in order", 2**18), ("gather", 2**18)]


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize(("name", "few_elements"), [*((n, 0) for n in OPERATORS), *SHIFTS])
def test_every_rule_gives_the_numbers_of_the_plain_engine(
    name, few_elements, operation, strategy, monkeypatch
):
    monkeypatch.setattr(program, "MANY_STEPS", 1)
    monkeypatch.setattr(flat, "FEW_ELEMENTS", few_elements)
    inner = OPERATORS[name]
    func = inner if operation == "jacobian" else lambda x: (inner(x) ** 2).sum()
    with torch.random.fork_rng():
        given, expected = (
            blocks(
                func,
                draw(6, 4),
                operation=operation,
                strategy=strategy,
                chunk_size=5,
                engine=engine,
            ).matrix()
            for engine in ("captured", "plain")
        )
    assert_same(given, expected, 1e-5 if name == "two dtypes" else 1e-10)


@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("name", OF_A_VECTOR)
def test_diagonal_stacks_give_the_numbers_of_autograd(name, operation):
    x, inner = draw(12) - 0.5, OF_A_VECTOR[name]
    func = inner if operation == "jacobian" else lambda x: (inner(x) ** 2).sum()
    expected = getattr(torch.autograd.functional, operation)(func, x).reshape(-1, 12)
    for strategy in BATCHED:
        for chunk_size in (5, 12):
            stream = blocks(
                func,
                x,
                operation=operation,
                strategy=strategy,
                chunk_size=chunk_size,
                engine="captured",
            )
            assert_same(stream.matrix(), expected, 1e-10)
            assert stream.engine == "captured", stream.engine_refusal


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("name", OPERATORS)
def test_which_functions_are_captured(name, strategy):
    stream = blocks(OPERATORS[name], draw(6, 4), operation="jacobian", strategy=strategy)
    stream.block(0, 1)
    expected = "plain" if ("jacobian", name, strategy) in REFUSED else "captured"
    assert stream.engine == expected, stream.engine_refusal
