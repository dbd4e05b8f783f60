"""What compiling would save is predicted from the steps of a program that can be fused."""

import torch
from torch import Tensor

from autodiff_core import blocks, predicting_fusion
from tests.core.support.cases import draw


def chain(x: Tensor) -> Tensor:
    for _ in range(30):
        x = x + 0.1 * torch.roll(x, 1, 0) * torch.sin(x)
    return x


def products(x: Tensor) -> Tensor:
    matrix = draw(x.shape[0], x.shape[0], seed=3)
    for _ in range(30):
        x = torch.tanh(matrix @ x)
    return x


def between(x: Tensor) -> Tensor:
    """Return two products with a chain between them that does not repeat."""
    x = draw(x.shape[0], x.shape[0], seed=3) @ x
    for power in range(1, 12):
        x = x.roll(power, 0) * x.abs().pow(1 / power) + x.sin()
    return draw(x.shape[0], x.shape[0], seed=4) @ x


def predicted(function, size: int = 40):
    stream = blocks(
        function,
        draw(size),
        operation="jacobian",
        strategy="forward-mode",
        chunk_size=size,
        engine="captured",
    )
    stream.block(0, size)
    with predicting_fusion() as found:
        image = stream.block(0, size).values
    expected = torch.autograd.functional.jacobian(function, draw(size))
    torch.testing.assert_close(image, expected)
    assert stream.engine == "captured"
    return found


def test_chains_of_elementwise_steps_are_predicted_to_gain():
    found = predicted(chain)
    assert found.seconds_saved > 0
    (steps,) = found.kernels
    # One kernel computes a step of the chain, however often it repeats.
    assert steps < 12


def test_products_are_not_predicted_to_gain():
    assert predicted(products).seconds_saved == 0


def test_what_lies_between_products_is_one_segment():
    found = predicted(between)
    assert found.seconds_saved > 0
    assert len(found.kernels) == 1


def test_nothing_is_predicted_for_a_map_that_is_not_captured():
    stream = blocks(chain, draw(9), operation="jacobian", strategy="vectorize", engine="plain")
    with predicting_fusion() as found:
        stream.block(0, 9)
    assert (found.seconds_saved, found.kernels) == (0.0, [])


def test_segments_between_products_are_compiled():
    given, expected = (
        blocks(
            between,
            draw(40),
            operation="jacobian",
            strategy="forward-mode",
            chunk_size=16,
            engine=engine,
        )
        for engine in ("compiled", "plain")
    )
    torch.testing.assert_close(given.matrix(), expected.matrix())
    assert (given.engine, given.engine_refusal) == ("compiled", None)
