"""Constants in lower precision are widened once, and never as they were before."""

import torch
from torch import Tensor

from jobs.verification.widening import Widening


def test_a_constant_is_widened_once() -> None:
    weight, mode = torch.randn(3), Widening()
    with mode:
        first, second = weight.view(3), weight.view(3)
    assert first.dtype == torch.float64
    assert first.data_ptr() == second.data_ptr()


def test_a_constant_that_changes_is_widened_again() -> None:
    weight, mode = torch.zeros(3), Widening()
    x = torch.ones(3, dtype=torch.float64)
    with mode:
        before = x * weight
        weight.add_(1)
        after = x * weight
    assert before.tolist() == [0, 0, 0]
    assert after.tolist() == [1, 1, 1]


def test_what_a_function_writes_into_a_view_does_not_last() -> None:
    weight, mode = torch.ones(3, dtype=torch.float16), Widening()

    def doubled() -> Tensor:
        # In half precision this copies; in double precision it is the constant itself.
        return weight.float().mul_(2)

    with mode:
        found = [doubled().tolist() for _ in range(2)]
    assert found == [[2, 2, 2], [2, 2, 2]]
    assert weight.tolist() == [1, 1, 1]


def test_constants_inside_transformations_are_widened_for_each() -> None:
    weight, mode = torch.arange(3.0), Widening()
    x = torch.ones(3, dtype=torch.float64)

    def image(x: Tensor) -> Tensor:
        return x * weight.sin()

    with mode:
        mapped = [torch.func.vmap(image)(x.expand(2, 3)) for _ in range(2)]
        pushed = [torch.func.jvp(image, (x,), (x,))[1] for _ in range(2)]
        plain = image(x)
    expected = weight.double().sin()
    for each in (*mapped[0], *mapped[1], *pushed, plain):
        torch.testing.assert_close(each, expected)


def test_what_an_evaluation_makes_is_not_kept() -> None:
    mode = Widening()
    with mode:
        (torch.ones(3, dtype=torch.float64) * torch.zeros(3, dtype=torch.float32)).sum()
    assert len(mode._constants) == 0


def test_what_a_function_fills_by_itself_is_widened() -> None:
    x, mode = torch.rand(4, dtype=torch.complex128), Widening()

    def scattered(x: Tensor) -> Tensor:
        filled = torch.zeros(6, dtype=torch.complex64)
        filled[1:5] = x
        return torch.zeros(6).index_add(0, torch.arange(6), filled.abs()) + torch.ones(6)

    with mode:
        found = scattered(x)
    expected = torch.nn.functional.pad(x.abs(), (1, 1)) + 1
    torch.testing.assert_close(found, expected, rtol=1e-15, atol=0)
    assert mode.epsilon == 0


def test_random_numbers_stay_the_same() -> None:
    def drawn() -> Tensor:
        return torch.randn(5, generator=torch.Generator().manual_seed(0))

    with Widening():
        found = drawn()
    assert torch.equal(found, drawn())
