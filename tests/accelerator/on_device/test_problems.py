"""Every problem, operation, strategy and engine gives on a device what it gives on the host."""

from functools import cache, partial
from typing import Any

import pytest
import torch

from autodiff_core import blocks, engines, ggn
from jobs.operations import OPERATIONS
from jobs.strategies import FORWARD, LOOPS
from tests.accelerator.on_device.conftest import KIND
from tests.core.support.cases import STRATEGIES
from tests.jobs.support.problem_cases import CASES, SCALARS, build, inputs, tensors

COMBINATIONS = [
    (name, operation, strategy)
    for name in CASES
    for operation, facts in OPERATIONS.items()
    for strategy in STRATEGIES
    if (name in SCALARS or not facts.is_second_order)
    and not (facts.is_from_left and strategy in FORWARD)
    and not facts.is_curvature
]


@cache
def on_host(name: str, operation: str) -> tuple[Any, torch.Tensor]:
    """Return the vectors of a product, and the matrix as the processor computes it."""
    facts, problem = OPERATIONS[operation], build(name)
    function = getattr(problem, "scalar" if facts.is_second_order else "function")
    point, vectors = inputs(problem), None
    if facts.is_product:
        like = point if operation != "vjp" else function(*point)
        torch.manual_seed(7)
        draw = partial(torch.randn, dtype=torch.float64)
        shaped = like if isinstance(like, tuple) else (like,)
        vectors = tuple(draw(3, *part.shape) for part in shaped)
        vectors = vectors if isinstance(like, tuple) else vectors[0]
    given: dict[str, Any] = {"vectors": vectors, "engine": "plain"}
    stream = blocks(function, point, operation=operation, strategy="vectorize", **given)
    return vectors, stream.matrix()


@pytest.mark.parametrize(("name", "operation", "strategy"), COMBINATIONS)
def test_a_device_gives_what_the_processor_gives(name, operation, strategy):
    vectors, expected = on_host(name, operation)
    problem = build(name, device=KIND)
    kind = "scalar" if OPERATIONS[operation].is_second_order else "function"
    function = getattr(problem, kind)
    for engine in engines(operation, strategy)[:2]:
        options: dict[str, Any] = {"operation": operation, "strategy": strategy, "engine": engine}
        stream = blocks(function, inputs(problem), vectors=moved(vectors), **options)
        lines = stream.axis.lines(stream.shape)
        # Small batches take other ways than large ones; lines of a loop are all alike.
        last = lines - 2 if strategy in LOOPS.values() else lines // 2
        for start, stop in ((0, min(4, lines)), (max(0, last), lines)):
            actual = stream.block(start, stop).values
            assert actual.device == torch.device(KIND, 0)
            assert stream.engine == engine, stream.engine_refusal
            wanted = expected[stream.axis.region(start, stop)]
            atol = 1e-12 * float(expected.abs().max())
            torch.testing.assert_close(actual.cpu(), wanted, rtol=1e-10, atol=atol)


def moved(vectors):
    if isinstance(vectors, tuple):
        return tuple(map(moved, vectors))
    return None if vectors is None else vectors.to(KIND)


@pytest.mark.parametrize("name", CASES)
def test_a_problem_keeps_all_of_its_tensors_on_the_device(name):
    problem = build(name, device=KIND)
    constants = getattr(problem.function, "keywords", {})
    assert {each.device.type for each in [*inputs(problem), *tensors(constants)]} == {KIND}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_curvature_matrix_is_that_of_the_processor(strategy):
    torch.manual_seed(3)
    drawn = (torch.randn(2, 3), torch.randn(4, 3), torch.randn(4, 2))
    weight, x, y = (each.double() for each in drawn)

    def matrix(device: str) -> torch.Tensor:
        def loss(z: torch.Tensor) -> torch.Tensor:
            return ((z - y.to(device)) ** 4).sum()

        def outputs(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x @ w.T)

        data = (x.to(device),)
        return ggn(outputs, loss, weight.to(device), data=data, strategy=strategy)

    found = matrix(KIND)
    assert found.device.type == KIND
    torch.testing.assert_close(found.cpu(), matrix("cpu"))
