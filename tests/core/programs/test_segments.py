"""Repeated segments of a program are found, and one function computes all of them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from autodiff_core._programs.flat import Tracer
from autodiff_core._programs.program import Program
from autodiff_core._programs.recording import record
from autodiff_core._programs.rules.lowering import lower
from autodiff_core._programs.segments import Segment
from autodiff_core._programs.stacks import dense_stack, one_hot
from tests.core.support.cases import assert_same, draw

COUNT = 5


def one_state(x: Tensor) -> Tensor:
    for _ in range(30):
        x = x + 0.1 * torch.roll(x, 1, 0) * torch.sin(x)
    return x


def two_states(x: Tensor) -> Tensor:
    place, speed = x, torch.cos(x)
    for _ in range(25):
        place = place + 0.1 * speed
        speed = speed - 0.1 * torch.roll(place, 2, -1) * place.exp()
    return place * speed


def layers(x: Tensor) -> Tensor:
    matrix = draw(x.shape[-1], x.shape[-1], seed=3)
    for _ in range(12):
        x = torch.tanh(x @ matrix) + 0.5 * x * x.mT.mT
    return x


def energy(x: Tensor) -> Tensor:
    return torch.func.grad(lambda y: one_state(y).square().sum())(x)


@pytest.mark.parametrize("shape", [(4, 3), (7, 1)])
@pytest.mark.parametrize("function", [one_state, two_states, layers, energy])
def test_fused_segments_give_the_products(function, shape: tuple[int, ...]) -> None:
    point = draw(*shape)
    pull = torch.func.vjp(function, point)[1]
    program = lower(record(lambda parts: pull(parts[0]), (draw(*shape, seed=1),)))
    vectors = [dense_stack(draw(COUNT, *shape, seed=2))]
    expected = torch.func.vmap(pull)(vectors[0].data)[0]
    program.apply(vectors, COUNT, reuses_memory=False, tracer=Tracer())
    groups = program.segments()
    found = [segment for group in groups for segment in group]
    assert 2 * sum(len(segment.numbers) for segment in found) > len(program.steps)
    calls = []

    def of(first: Segment):
        def run(*values: Tensor):
            calls.append(len(values))
            return first.run(*values)

        return run

    program.fuse([replace(each, run=of(group[0])) for group in groups for each in group])
    assert_same(program.apply(vectors, COUNT)[0], expected, 1e-12)
    assert len(calls) == len(found)
    # Another count and one-hot vectors are computed step by step where they do not fit.
    assert_same(program.apply([dense_stack(vectors[0].data[:3])], 3)[0], expected[:3], 1e-12)
    basis = one_hot(0, COUNT, point)
    assert_same(program.apply([basis], COUNT)[0], torch.func.vmap(pull)(basis.dense())[0], 1e-12)


def test_a_program_that_does_not_repeat_has_no_segments() -> None:
    def function(x: Tensor) -> Tensor:
        for power in range(1, 9):
            x = torch.roll(x, power, 0) * x.abs().pow(1 / power) + x.cumsum(0)[:1] * power
        return x

    point = draw(6)
    pull = torch.func.vjp(function, point)[1]
    program = lower(record(lambda parts: pull(parts[0]), (draw(6, seed=1),)))
    program.apply([dense_stack(draw(COUNT, 6))], COUNT, tracer=Tracer())
    assert program.segments() == []


def test_steps_beside_kernels_overwrite_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    point = draw(6)
    pull = torch.func.vjp(two_states, point)[1]
    program = lower(record(lambda parts: pull(parts[0]), (draw(6, seed=1),)))
    vectors = [dense_stack(draw(COUNT, 6, seed=2))]
    spares = []
    applied = Program._applied

    def noted(self: Program, number: int, given, count: int, spare, tracer):
        spares.append(spare)
        return applied(self, number, given, count, spare, tracer)

    monkeypatch.setattr(Program, "_applied", noted)
    expected = program.apply(vectors, COUNT)[0]
    assert any(spares)
    program.apply(vectors, COUNT, reuses_memory=False, tracer=Tracer())
    program.fuse([each for group in program.segments() for each in group])
    program._flats.clear()
    spares.clear()
    assert_same(program.apply(vectors, COUNT)[0], expected, 1e-12)
    assert spares
    assert not any(spares)
