"""What a map computes twice is one step of its program."""

import torch

from autodiff_core._programs.recording import record
from autodiff_core._programs.rules.lowering import lower
from autodiff_core._programs.stacks import dense_stack
from tests.core.support.cases import draw


def products_in(linear_map):
    """Return how many products the program of a map of a 3 x 4 matrix has, checking its images."""
    vectors = draw(5, 3, 4)
    program = lower(record(linear_map, (vectors[0],)))
    (images,) = program.apply([dense_stack(vectors)], 5)
    expected = torch.stack([linear_map((vector,))[0] for vector in vectors])
    torch.testing.assert_close(images, expected, rtol=1e-14, atol=1e-14)
    return sum(step.kind == "matmul" for step in program.steps.values())


def test_a_selection_of_an_outer_product_is_one_of_its_factors():
    row = draw(1, 30, seed=1)

    def linear_map(v):
        product = -(v[0].flip(0) @ row)
        return (product.diagonal(-2)[:20] - 3 * product.diagonal()[5:25].roll(2),)

    vectors = draw(5, 30, 1)
    program = lower(record(linear_map, (vectors[0],)))
    (images,) = program.apply([dense_stack(vectors)], 5)
    expected = torch.stack([linear_map((vector,))[0] for vector in vectors])
    torch.testing.assert_close(images, expected, rtol=1e-14, atol=1e-14)
    assert {step.shape for step in program.steps.values()} <= {(20,), (30,), (28,), (30, 1)}


def test_parts_that_cover_a_dimension_are_joined():
    def linear_map(v):
        parts = [
            torch.ops.aten.slice_backward(
                v[0][a:b].permute(1, 0, 2) * (a + 1), [6, 5, 4], 1, a, b, 1
            )
            for a, b in ((3, 5), (0, 1), (1, 3))
        ]
        return (parts[0] + parts[1] + parts[2] - v[0].permute(1, 0, 2),)

    vectors = draw(7, 5, 6, 4)
    program = lower(record(linear_map, (vectors[0],)))
    (images,) = program.apply([dense_stack(vectors)], 7)
    expected = torch.stack([linear_map((vector,))[0] for vector in vectors])
    torch.testing.assert_close(images, expected, rtol=1e-14, atol=1e-14)
    kinds = [step.kind for step in program.steps.values()]
    assert "join" in kinds
    assert "pad" not in kinds


def test_parts_that_overlap_or_leave_gaps_are_summed():
    for ends in (((0, 3), (2, 5)), ((0, 2), (3, 5)), ((0, 3), (3, 4))):

        def linear_map(v, ends=ends):
            parts = [
                torch.ops.aten.slice_backward(v[0][a:b].flip(0), [5, 3], 0, a, b, 1)
                for a, b in ends
            ]
            return (parts[0] + parts[1],)

        vectors = draw(4, 5, 3)
        program = lower(record(linear_map, (vectors[0],)))
        (images,) = program.apply([dense_stack(vectors)], 4)
        expected = torch.stack([linear_map((vector,))[0] for vector in vectors])
        torch.testing.assert_close(images, expected, rtol=1e-14, atol=1e-14)
        assert "join" not in [step.kind for step in program.steps.values()]


def test_equal_operators_on_equal_constants_are_one_step():
    matrix = draw(4, 4, seed=1)
    assert products_in(lambda v: (v[0] @ matrix - 3 * (v[0] @ matrix.mT.mT).roll(1, 0),)) == 1
    assert products_in(lambda v: (torch.cat([v[0] @ matrix, v[0].clone() @ matrix]),)) == 1


def test_other_constants_or_arguments_are_other_steps():
    matrix, other = draw(4, 4, seed=1), draw(4, 4, seed=2)
    assert products_in(lambda v: (v[0] @ matrix - v[0] @ other,)) == 2
    assert products_in(lambda v: (v[0] @ matrix - v[0] @ matrix.mT,)) == 2
    assert products_in(lambda v: (v[0] @ matrix[:, :2] - v[0] @ matrix[:, 1:3],)) == 2
    assert products_in(lambda v: (v[0] @ matrix + v[0].roll(1, 0) @ matrix,)) == 2


def test_a_constant_that_is_modified_in_between_is_another_one():
    def linear_map(v):
        matrix = draw(4, 4, seed=1)
        first = v[0] @ matrix
        return (first - v[0] @ matrix.mul_(2),)

    assert products_in(linear_map) == 2
