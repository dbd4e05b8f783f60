"""Every rule gives the numbers of the plain engine."""

import pytest
import torch

from autodiff_core import blocks
from autodiff_core._tensors import linear_combination
from tests.core.support.cases import MATRICES, assert_same, draw
from tests.core.support.operators import BATCHED, OPERATORS, REFUSED


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("name", OPERATORS)
def test_every_rule_gives_the_numbers_of_the_plain_engine(name, operation, strategy, monkeypatch):
    # Reuse memory, as for large tensors.
    monkeypatch.setattr(linear_combination, "FEW_ELEMENTS", 1)
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


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("name", OPERATORS)
def test_which_functions_are_captured(name, strategy):
    stream = blocks(OPERATORS[name], draw(6, 4), operation="jacobian", strategy=strategy)
    stream.block(0, 1)
    expected = "plain" if ("jacobian", name, strategy) in REFUSED else "captured"
    assert stream.engine == expected, stream.engine_refusal
