"""Stacks of tensors by torch's own batching, without what `torch.func.vmap` does beside."""

from __future__ import annotations

import pytest
import torch

from autodiff_core._tensors.batching import batched


def _function(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x @ y, torch.linalg.solve(x + 5 * torch.eye(3), y).sum(), torch.arange(3.0), x.mT)


def test_images_are_those_of_each_tensor() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 3, generator=generator)
    y = torch.randn(4, 3, generator=generator)
    images = batched(_function, [x, y], 4)
    for index in range(4):
        expected = _function(x[index], y[index])
        for image, plain in zip(images, expected, strict=True):
            torch.testing.assert_close(image[index], plain)
    assert [tuple(each.shape) for each in images] == [(4, 3), (4,), (4, 3), (4, 3, 3)]


def test_a_batch_inside_a_batch() -> None:
    x = torch.arange(24.0).view(2, 3, 4)

    def of_rows(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return batched(lambda row: (row.sum(), row * rows.sum()), [rows], 3)

    sums, products = batched(of_rows, [x], 2)
    torch.testing.assert_close(sums, x.sum(-1))
    torch.testing.assert_close(products, x * x.sum((1, 2), keepdim=True))


def test_an_error_leaves_no_level_behind() -> None:
    def fails(x: torch.Tensor) -> tuple[torch.Tensor]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        batched(fails, [torch.ones(2)], 2)
    level = torch._C._functorch.maybe_current_level()  # pyright: ignore[reportAttributeAccessIssue]
    assert level is None


def test_random_numbers_are_refused_or_shared() -> None:
    def drawn(x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x + torch.rand(()),)

    with pytest.raises(RuntimeError, match="random"):
        batched(drawn, [torch.zeros(3)], 3)
    (shared,) = batched(drawn, [torch.zeros(3)], 3, randomness="same")
    assert len(shared.unique()) == 1
