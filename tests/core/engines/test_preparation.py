"""What of a chunk prepares for later ones is announced to those who time it."""

from contextlib import contextmanager

import pytest
import torch

from autodiff_core import blocks, noting_preparation
from autodiff_core._engines import batched
from autodiff_core._programs.program import Program
from autodiff_core._tensors.vectors import PROBES
from tests.core.support.cases import draw


def _func(x):
    for _ in range(20):
        x = torch.tanh(x.roll(1)) * x
    return x


@pytest.fixture
def inside():
    """Whether an engine says that it prepares: not empty meanwhile."""
    return []


@pytest.fixture
def measuring(inside):
    @contextmanager
    def entered():
        inside.append(True)
        yield
        inside.pop()

    return entered


def test_recording_and_noting_flat_steps_prepare(inside, measuring, monkeypatch):
    monkeypatch.setattr(Program, "is_short", lambda program, count: program._last_chunk[0] == count)
    stream = blocks(
        _func, draw(12), operation="jacobian", strategy="vectorize", chunk_size=4, engine="captured"
    )
    counts, apply = [], Program.apply

    def applied(program, stacks, count, *others, **named):
        counts.append((count, bool(inside)))
        return apply(program, stacks, count, *others, **named)

    monkeypatch.setattr(Program, "apply", applied)
    found = []
    for start in range(0, 12, 4):
        with noting_preparation(measuring) as preparation:
            stream.block(start, start + 4)
        found.append((preparation.happened, preparation.continues))
    assert found == [(True, False), (False, False), (False, False)]
    assert counts[0] == (1 + PROBES, True)
    assert [is_inside for count, is_inside in counts if count == 4] == 3 * [False]


def test_verifying_the_first_batch_prepares(inside, measuring, monkeypatch):
    stream = blocks(
        _func, draw(12), operation="jacobian", strategy="vectorize", chunk_size=4, engine="plain"
    )
    verified, verify = [], batched.verify

    def noted(*args):
        verified.append(bool(inside))
        return verify(*args)

    monkeypatch.setattr(batched, "verify", noted)
    found = []
    for start in range(0, 12, 4):
        with noting_preparation(measuring) as preparation:
            stream.block(start, start + 4)
        found.append(preparation.happened)
    assert found == [True, False, False]
    # A batch of random vectors, and the batch itself.
    assert verified == [True, True]
