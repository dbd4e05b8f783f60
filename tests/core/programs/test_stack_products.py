"""Products of stacks with matrices are those of the single vectors."""

import pytest
import torch

from autodiff_core._programs.stack_products import times_from_left
from autodiff_core._programs.stacks import dense_stack
from tests.core.support.cases import draw


@pytest.mark.parametrize("columns", [0, 1, 3, 15, 16, 17])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0)])
def test_products_from_the_left_are_those_of_the_vectors(columns, order):
    matrix = draw(4, 6, seed=1)
    shape = [(5, 6, columns)[place] for place in order]
    vectors = draw(*shape).permute([order.index(place) for place in range(3)])
    found = times_from_left(matrix, dense_stack(vectors), (4, columns), None).dense()
    expected = torch.einsum("ij,bjk->bik", matrix, vectors)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
