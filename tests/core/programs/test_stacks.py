"""One-hot vectors as stacks are those of the identity, with a support that leaves much out."""

import pytest
import torch

from autodiff_core._programs.stacks import one_hot

SHAPES = [(), (6,), (1, 6), (3, 4), (4, 3), (2, 3, 4), (4, 1, 3), (5, 2, 2), (1, 1), (3, 1, 1, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_range_is_that_of_the_identity(shape: tuple[int, ...]) -> None:
    like = torch.zeros(shape)
    identity = torch.eye(like.numel())
    for start in range(like.numel()):
        for stop in range(start + 1, like.numel() + 1):
            stack = one_hot(start, stop, like)
            assert torch.equal(stack.dense().reshape(stop - start, -1), identity[start:stop])


def test_a_support_is_along_the_dimension_that_leaves_most_out() -> None:
    like = torch.zeros(4, 3, 5)
    inside_a_row = one_hot(31, 34, like)
    assert (inside_a_row.dim, inside_a_row.support) == (0, range(2, 3))
    across_rows = one_hot(14, 16, like)
    assert (across_rows.dim, across_rows.support) == (0, range(2))
    inside_the_second = one_hot(3, 5, torch.zeros(1, 4, 3))
    assert (inside_the_second.dim, inside_the_second.support) == (1, range(1, 2))
    assert one_hot(2, 11, torch.zeros(4, 3)).support is None
