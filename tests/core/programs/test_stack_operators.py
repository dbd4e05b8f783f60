"""Stacks with supports in other shapes have the elements that their dense vectors have."""

import pytest
import torch

from autodiff_core._programs import stack_operators
from autodiff_core._programs.stack_operators import Gather, gather, reshape
from autodiff_core._programs.stacks import Stack
from tests.core.support.cases import draw

SHAPES = [
    (4, 6, 3),
    (24, 3),
    (4, 18),
    (72,),
    (1, 4, 6, 3),
    (4, 1, 6, 3),
    (4, 3, 6),
    (8, 9),
    (2, 12, 3),
]


@pytest.mark.parametrize("support", [range(1, 3), torch.tensor([0, 2, 3]), range(2, 2)])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_support_follows_its_elements(shape, dim, support):
    given = (4, 6, 3)
    compact = [len(support) if place == dim else size for place, size in enumerate(given)]
    stack = Stack(draw(5, *compact), given, dim, support)
    found = reshape(stack, shape)
    assert torch.equal(found.dense(), stack.dense().reshape(5, *shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_one_hot_vectors_follow_their_elements(shape):
    stack = Stack(draw(3, 1, 6, 3), (4, 6, 3), 0, range(1, 4), diagonal=True)
    assert torch.equal(reshape(stack, shape).dense(), stack.dense().reshape(3, *shape))


def test_lines_that_are_joined_stay_a_part():
    stack = Stack(draw(5, 2, 6, 3), (4, 6, 3), 0, range(1, 3))
    assert reshape(stack, (24, 3)).support == range(6, 18)


@pytest.mark.parametrize("few", [0, stack_operators.FEW_ELEMENTS])
@pytest.mark.parametrize("support", [range(1, 4), range(6), range(5, 6), torch.tensor([0, 2, 3])])
@pytest.mark.parametrize("index", [[5, 4, 3, 2, 1, 0], [2, 2, 0, 3, 2], [0, 4], []])
def test_gathered_positions_are_those_of_the_dense_vectors(monkeypatch, index, support, few):
    monkeypatch.setattr(stack_operators, "FEW_ELEMENTS", few)
    given = Stack(draw(5, 4, len(support)), (4, 6), 1, support)
    positions = torch.tensor(index, dtype=torch.int64)
    found = gather(given, 1, Gather(positions))
    assert torch.equal(found.dense(), given.dense().index_select(2, positions))
    assert found.shape == (4, len(index))


@pytest.mark.parametrize("few", [0, stack_operators.FEW_ELEMENTS])
def test_a_gather_knows_where_one_hot_vectors_do_not_reach(monkeypatch, few):
    monkeypatch.setattr(stack_operators, "FEW_ELEMENTS", few)
    given = Stack(torch.ones(2, 1), (6,), 0, range(3, 5), diagonal=True)
    support = gather(given, 0, Gather(torch.tensor([5, 0, 1]))).support
    assert support is not None
    assert not len(support)
    reached = gather(given, 0, Gather(torch.tensor([4, 0, 4, 3])))
    assert torch.equal(reached.dense(), torch.tensor([[0.0, 0, 0, 1], [1, 0, 1, 0]]))


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_diagonal_stacks_are_written_out_where_they_lie(dim):
    shape = (4, 6, 5)
    compact = [1 if place == dim else size for place, size in enumerate(shape)]
    stack = Stack(draw(3, *compact), shape, dim, range(1, 4), diagonal=True)
    dense = stack.dense()
    assert dense.count_nonzero() == stack.data.numel()
    for vector in range(3):
        assert torch.equal(dense[vector].select(dim, 1 + vector), stack.data[vector].squeeze(dim))
