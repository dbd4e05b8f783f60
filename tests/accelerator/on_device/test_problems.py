"""Every problem, operation, strategy and engine gives on a device what it gives on the host."""

from functools import partial
from typing import Any

import pytest
import torch

from autodiff_core import blocks, engines
from jobs.operations import OPERATIONS
from jobs.strategies import FORWARD
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
]


@pytest.mark.parametrize(("name", "operation", "strategy"), COMBINATIONS)
def test_a_device_gives_what_the_processor_gives(name, operation, strategy):
    facts = OPERATIONS[operation]
    on_host, on_device = build(name), build(name, device=KIND)
    point = inputs(on_host)
    kind = "scalar" if facts.is_second_order else "function"
    chosen = [getattr(problem, kind) for problem in (on_host, on_device)]
    vectors = None
    if facts.is_product:
        like = point if operation != "vjp" else chosen[0](*point)
        torch.manual_seed(7)
        draw = partial(torch.randn, dtype=torch.float64)
        shaped = like if isinstance(like, tuple) else (like,)
        vectors = tuple(draw(3, *part.shape) for part in shaped)
        vectors = vectors if isinstance(like, tuple) else vectors[0]
    options: dict[str, Any] = {"operation": operation, "strategy": strategy}
    expected = blocks(chosen[0], point, vectors=vectors, **options, engine="plain").matrix()
    for engine in engines(operation, strategy)[:2]:
        there = moved(vectors)
        stream = blocks(
            chosen[1], inputs(on_device), vectors=there, chunk_size=4, engine=engine, **options
        )
        actual = stream.matrix()
        assert actual.device == torch.device(KIND, 0)
        assert stream.engine == engine, stream.engine_refusal
        scale = expected.abs().max()
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-10, atol=1e-12 * float(scale))


def moved(vectors):
    if isinstance(vectors, tuple):
        return tuple(map(moved, vectors))
    return None if vectors is None else vectors.to(KIND)


@pytest.mark.parametrize("name", CASES)
def test_a_problem_keeps_all_of_its_tensors_on_the_device(name):
    problem = build(name, device=KIND)
    constants = getattr(problem.function, "keywords", {})
    assert {each.device.type for each in [*inputs(problem), *tensors(constants)]} == {KIND}
