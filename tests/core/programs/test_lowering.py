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


def checked(linear_map, *shape):
    """Return the steps of the program of a map of one tensor, checking its images."""
    vectors = draw(4, *shape)
    program = lower(record(linear_map, (vectors[0],)))
    (images,) = program.apply([dense_stack(vectors)], 4)
    expected = torch.stack([linear_map((vector,))[0] for vector in vectors])
    torch.testing.assert_close(images, expected, rtol=1e-14, atol=1e-14)
    return list(program.steps.values())


def test_terms_with_the_same_part_are_summed_before_parts_are_joined():
    def linear_map(v):
        pad = torch.ops.aten.slice_backward
        parts = [
            pad(v[0][a:b] @ draw(3, 3, seed=seed), [5, 3], 0, a, b, 1)
            for seed, (a, b) in enumerate(((0, 2), (0, 2), (0, 2), (2, 5)))
        ]
        return (parts[0] + parts[1] + parts[2] + parts[3],)

    kinds = [step.kind for step in checked(linear_map, 5, 3)]
    assert kinds.count("join") == 1
    assert kinds.count("combine") == 1
    assert "pad" not in kinds


def test_parts_of_other_shapes_than_what_they_pad_are_summed():
    def linear_map(v):
        first = torch.ops.aten.slice_backward(v[0][:1].flip(1), [2, 3], 0, 0, 1, 1)
        same = torch.ops.aten.select_backward(v[0][0].roll(1), [2, 3], 0, 0)
        last = torch.ops.aten.select_backward(v[0][1].roll(2), [2, 3], 0, 1)
        return (first + same + last,)

    assert "join" not in [step.kind for step in checked(linear_map, 2, 3)]


def test_adjacent_multiples_of_one_result_are_joined_as_one_product():
    factors = draw(6, seed=1)

    def linear_map(v):
        x, y = torch.sin(factors[0]) * v[0][0], v[0][1].roll(1)
        zero = torch.zeros(3, dtype=x.dtype)
        return (torch.stack([x, -x * 2, (x * factors[:3]).reshape(3), zero, zero, y * 3, y, x]),)

    steps = checked(linear_map, 2, 3)
    (join,) = [step for step in steps if step.kind == "join"]
    assert len(join.inputs) == 3
    assert [step.shape for step in steps if step.kind == "combine"] == [(3,), (3, 3), (2, 3)]


def test_pieces_of_a_join_keep_their_factors_in_every_shape_and_dimension():
    factors = draw(6, seed=1)

    def linear_map(v):
        x = v[0].roll(1)
        lines = (x * factors).view(2, 3, 1)
        zeros = torch.zeros(2, 3, 2, dtype=x.dtype)
        parts = [lines * factors[:3, None], x.view(2, 3, 1) * 2, zeros, x.view(2, 3, 1)]
        return (torch.cat(parts, 2),)

    (join,) = [step for step in checked(linear_map, 6) if step.kind == "join"]
    assert len(join.inputs) == 2


def test_a_selection_is_a_factor_of_a_piece():
    def linear_map(v):
        x = v[0].roll(1, 0)
        return (torch.stack([x.tril(), x, x.triu(1) * 3]),)

    assert "join" not in [step.kind for step in checked(linear_map, 3, 3)]


def test_many_multiples_of_multiples_are_joined():
    def linear_map(v):
        found = [v[0].roll(1)]
        for _ in range(200):
            found.append(found[-1] * 0.99)
        return (torch.stack(found),)

    assert len(checked(linear_map, 2)) <= 3


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


def test_a_constant_that_requires_a_gradient_is_kept_without():
    matrix = draw(4, 4, seed=1).requires_grad_()

    def linear_map(v):
        before = v[0] @ matrix.detach().requires_grad_()
        product = v[0] @ matrix
        matrix.mul_(2)
        return (before - product + v[0] @ matrix,)

    with torch.no_grad():
        recording = record(linear_map, (draw(3, 4),))
    constants = [each for call in recording.calls for each in call.args if torch.is_tensor(each)]
    assert constants
    assert not any(each.requires_grad for each in constants)
    vectors = draw(5, 3, 4, seed=3)
    (images,) = lower(recording).apply([dense_stack(vectors)], 5)
    # The second product was computed before the matrix was doubled.
    expected = vectors @ matrix.detach()
    torch.testing.assert_close(images, expected, rtol=1e-14, atol=1e-14)


def test_a_stack_of_one_result_has_a_dimension_more():
    def linear_map(v):
        return (torch.stack([torch.sin(v[0])], 1) * 2,)

    checked(linear_map, 2, 3)


def test_multiples_of_real_results_by_complex_numbers_are_new_results():
    def linear_map(v):
        turned = v[0].roll(1) * v[0].new_tensor([1, 2, 3])
        return (turned * (1 + 0.5j) + v[0].flip(0) * 2j,)

    checked(linear_map, 2, 3)
