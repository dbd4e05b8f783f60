"""Stacks with supports in other shapes have the elements that their dense vectors have."""

import pytest
import torch

from autodiff_core._programs.stack_operators import reshape
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
