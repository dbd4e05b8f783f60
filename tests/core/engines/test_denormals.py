"""Chains of steps whose derivatives decay below the smallest normal number."""

import pytest
import torch
from torch import Tensor

import autodiff_core
from autodiff_core._engines.denormals import has_denormal_constants, scaled_images
from autodiff_core._programs.program import Program
from autodiff_core._programs.recording import record
from autodiff_core._programs.stacks import Stack
from autodiff_core._programs.steps import combination

STEPS = 60
POINT = torch.rand(64, generator=torch.Generator().manual_seed(1))


def decaying(x: Tensor) -> Tensor:
    """Return the state after many steps in which each element reaches its neighbours."""
    for _ in range(STEPS):
        x = 0.9 * x + 1e-3 * torch.roll(x, 1) * torch.roll(x, -1)
    return x


def far_and_back(x: Tensor) -> Tensor:
    """Return the same after derivatives more of which are denormal numbers."""
    return 1e3 * torch.roll(1e-3 * decaying(x), 1)


def through_large_numbers(x: Tensor) -> Tensor:
    """Return the same after derivatives that overflow if they are scaled."""
    return 1e-36 * torch.roll(1e36 * decaying(x), 1)


def matrix(function, point: Tensor, strategy: str, engine: str, chunk_size: int) -> Tensor:
    stream = autodiff_core.blocks(
        function,
        (point,),
        operation="jacobian",
        strategy=strategy,
        engine=engine,
        chunk_size=chunk_size,
    )
    lines = torch.cat([block.values for block in stream], 0 if stream.axis == "rows" else 1)
    assert stream.engine == engine
    return lines


def flushes() -> bool:
    return bool(torch.tensor(1e-40) * 0.5 == 0)


@pytest.fixture
def scalings(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list to which each scaled chunk adds whether its images were finite."""
    found: list[bool] = []

    def noting(*given, **options):
        images = scaled_images(*given, **options)
        found.append(images is not None)
        return images

    monkeypatch.setattr("autodiff_core._engines.captured.scaled_images", noting)
    return found


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("function", [decaying, far_and_back])
def test_what_is_normal_has_all_digits_and_what_is_not_is_not_lost(
    function, strategy: str, scalings: list[bool]
) -> None:
    exact = matrix(function, POINT.double(), strategy, "plain", 16)
    captured = matrix(function, POINT, strategy, "captured", 24)
    assert scalings
    assert all(scalings)
    assert ((captured != 0) & (captured.abs() < 1.1e-38)).any()
    assert ((captured - exact).abs() <= 2e-5 * exact.abs() + 3e-45).all()
    assert not flushes()


def test_what_overflows_when_scaled_is_computed_without(scalings: list[bool]) -> None:
    plain = matrix(through_large_numbers, POINT, "forward-mode", "plain", 16)
    captured = matrix(through_large_numbers, POINT, "forward-mode", "captured", 16)
    assert not any(scalings)
    torch.testing.assert_close(captured, plain)


@pytest.mark.parametrize("tiny", [torch.full((64,), 1e-40), 1e-40], ids=["tensor", "number"])
def test_constants_that_are_denormal_numbers_count(
    tiny: Tensor | float, scalings: list[bool]
) -> None:
    def with_tiny_constants(x: Tensor) -> Tensor:
        return torch.cat([decaying(x), 1e38 * (tiny * torch.roll(x, 1))])

    plain = matrix(with_tiny_constants, POINT, "forward-mode", "plain", 16)
    captured = matrix(with_tiny_constants, POINT, "forward-mode", "captured", 16)
    assert not scalings
    assert plain[64:].abs().max() > 9e-3
    torch.testing.assert_close(captured, plain)


@pytest.mark.parametrize("factor", [1e-40, torch.tensor(1e-40), 0.5, 0.0])
def test_numbers_are_constants_too(factor: float | Tensor) -> None:
    recording = record(lambda parts: (parts[0] * factor,), (torch.ones(3),))
    assert has_denormal_constants(recording) == (0 < factor < 1e-38)


def test_double_precision_and_gradients_that_do_not_decay_are_not_scaled(
    scalings: list[bool],
) -> None:
    for function, x in ((decaying, POINT.double()), (lambda x: x.cumsum(0), POINT)):
        plain = matrix(function, x, "vectorize", "plain", 16)
        captured = matrix(function, x, "vectorize", "captured", 16)
        torch.testing.assert_close(captured, plain)
    assert not scalings


@pytest.mark.parametrize("is_flushing", [False, True])
def test_the_thread_keeps_its_mode(is_flushing: bool) -> None:
    if not torch.set_flush_denormal(is_flushing):
        pytest.skip("this processor has no such mode")
    try:
        matrix(decaying, POINT, "vectorize", "captured", 16)
        assert flushes() == is_flushing
    finally:
        torch.set_flush_denormal(False)


def test_an_error_restores_the_mode() -> None:
    program = Program(1, {0: combination((-1,), (2.0,), (), torch.float32)}, (0, 1))
    program.finish()
    with pytest.raises(ValueError, match="zip"):
        scaled_images(program, [Stack(torch.ones(1), ())], 1, None)
    assert not flushes()
