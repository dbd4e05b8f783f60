"""Windows of images as columns of matrices, and images at the places of a grid."""

import pytest
import torch
from torch.nn import functional

from autodiff_core import blocks
from autodiff_core._programs import stack_operators
from autodiff_core._programs.rules import lowering
from autodiff_core._programs.stacks import Stack
from tests.core.support.cases import MATRICES, assert_same, draw
from tests.core.support.operators import BATCHED

WINDOWS = {
    "adjacent": {"kernel_size": 2},
    "padded": {"kernel_size": (3, 2), "padding": (1, 2)},
    "apart": {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 1)},
    "with gaps": {"kernel_size": 2, "dilation": (2, 1), "padding": 1, "stride": (1, 2)},
    "beyond": {"kernel_size": 3, "padding": 3, "stride": 4},
}


@pytest.fixture(autouse=True)
def no_rule_gives_up(monkeypatch):
    """Fail where an operator is batched by vmap."""
    monkeypatch.setattr(lowering, "_general", None)


def _assert_rows(func, x, operation, strategy, chunk_size):
    expected = getattr(torch.autograd.functional, operation)(func, x)
    stream = blocks(
        func, x, operation=operation, strategy=strategy, chunk_size=chunk_size, engine="captured"
    )
    assert_same(stream.matrix(), expected.reshape(-1, x.numel()), 1e-11)
    assert stream.engine == "captured", stream.engine_refusal


@pytest.mark.parametrize("chunk_size", [3, 7, 100])
@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("name", WINDOWS)
def test_columns_of_windows(name, operation, strategy, chunk_size):
    options, x = WINDOWS[name], draw(2, 6, 5)

    def func(x):
        columns = functional.unfold(x[None], **options)
        mixed = (draw(columns.shape[1], columns.shape[1]) @ columns).sin()
        return functional.fold(mixed, (6, 5), **options) * x

    inner = func if operation == "jacobian" else lambda x: (func(x) ** 2).sum()
    _assert_rows(inner, x, operation, strategy, chunk_size)


SAMPLINGS = [
    ("bilinear", "zeros", True),
    ("bilinear", "reflection", False),
    ("bicubic", "border", True),
    ("nearest", "zeros", False),
]


@pytest.mark.parametrize("chunk_size", [3, 11, 100])
@pytest.mark.parametrize(("mode", "padding", "aligned"), SAMPLINGS)
def test_images_at_the_places_of_a_grid(mode, padding, aligned, chunk_size):
    options = {"mode": mode, "padding_mode": padding, "align_corners": aligned}
    image, grid = draw(2, 3, 4, 5) - 0.5, 3 * draw(2, 6, 2, 2) - 1.5

    def of_image(x):
        return functional.grid_sample(x.sin() * image, grid, **options)[:, 1:] ** 2

    def of_grid(x):
        return functional.grid_sample(image, x + 0.01, **options).tanh()

    def of_channels(x):
        return functional.grid_sample(x[:, 1:].repeat(1, 2, 1, 1), grid, **options).tanh()

    _assert_rows(of_image, draw(2, 3, 4, 5), "jacobian", "vectorize", chunk_size)
    _assert_rows(of_channels, draw(2, 3, 4, 5), "jacobian", "vectorize", chunk_size)
    _assert_rows(of_grid, grid, "jacobian", "vectorize", chunk_size)


def test_volumes_at_the_places_of_a_grid():
    volume, grid = draw(1, 2, 3, 4, 3), draw(1, 2, 3, 2, 3)

    def of_volume(x):
        return functional.grid_sample(x**2, grid, align_corners=True)

    def of_grid(x):
        return functional.grid_sample(volume, x, align_corners=True) ** 2

    _assert_rows(of_volume, volume, "jacobian", "vectorize", 5)
    _assert_rows(of_grid, grid, "jacobian", "vectorize", 5)


@pytest.mark.parametrize(
    ("support", "shape", "dim"),
    [
        (range(3, 9), (2, 4, 3, 5), 1),
        (range(12), (2, 4, 3, 5), 1),
        (range(4, 9), (2, 4, 3, 5), None),
        (range(6, 12), (2, 2, 2, 3, 5), 1),
        (range(2, 4), (2, 6, 10), None),
    ],
)
def test_a_support_of_whole_positions_stays_one(support, shape, dim):
    stack = Stack(draw(3, 2, len(support), 5), (2, 12, 5), 1, support)
    found = stack_operators.reshape(stack, shape)
    assert found.dim == dim
    assert torch.equal(found.dense(), stack.dense().reshape(3, *shape))
