"""Runs of flat steps give the numbers of the steps."""

import pytest
import torch

from autodiff_core._programs.flat import Tracer
from autodiff_core._programs.recording import record
from autodiff_core._programs.rules.lowering import lower
from autodiff_core._programs.stacks import Stack, dense_stack, one_hot
from tests.core.support.cases import draw


def steps(v):
    """Return two linear images of a vector by 200 steps, with uses far apart."""
    x, first, factor = v[0].roll(1, 0), v[0].roll(2, 0), draw(40, seed=1)
    for _ in range(60):
        x = x.roll(1, 0) * factor - x.flip(0) + 0.1 * first
    return x, first + 2 * x.roll(3, 0)


@pytest.fixture
def traced():
    """Return a program of which flat forms of dense vectors are noted."""
    vectors = draw(7, 40)
    program = lower(record(steps, (vectors[0],)))
    program.apply([dense_stack(vectors)], 7, tracer=Tracer())
    return program


def assert_images(program, stack: Stack) -> None:
    expected = [
        torch.stack(parts) for parts in zip(*map(steps, stack.dense()[:, None]), strict=True)
    ]
    for given, image in zip(program.apply([stack], stack.count), expected, strict=True):
        torch.testing.assert_close(given, image, rtol=1e-12, atol=1e-12)


def test_most_steps_are_parts_of_runs(traced):
    inside = [number for run in traced._runs.values() for number in run.numbers]
    assert len(inside) == len(set(inside)) > 0.9 * len(traced.steps)


def test_runs_of_repeated_steps_share_their_texts(traced):
    codes = {run.run.__code__ for run in traced._runs.values()}
    assert len(codes) < len(traced._runs) / 2


def test_dense_vectors(traced):
    assert_images(traced, dense_stack(draw(7, 40, seed=2)))


def test_vectors_that_are_not_those_that_were_traced(traced):
    """They lie otherwise in memory, are one-hot, or are more."""
    assert_images(traced, dense_stack(draw(40, 7, seed=2).T))
    assert_images(traced, one_hot(5, 12, draw(40)))
    assert_images(traced, dense_stack(draw(9, 40, seed=2)))


def test_runs_are_forgotten_with_the_flat_forms(traced):
    traced.forget_flat_forms()
    assert not traced._runs
    assert_images(traced, dense_stack(draw(7, 40, seed=3)))
