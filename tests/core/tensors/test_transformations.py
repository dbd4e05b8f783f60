"""Transformations give what those of `torch.func` give."""

from __future__ import annotations

import pytest
import torch

from autodiff_core._tensors.transformations import batched, pushed


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


def _curve(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x.sin() * y, torch.ones(2), (x * x).sum())


def test_an_image_is_that_of_jvp() -> None:
    x, y, u, v = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values, images = pushed(_curve, [x, y], [u, v])
    expected = _curve(x, y)
    slopes = (x.cos() * y * u + x.sin() * v, torch.zeros(2), 2 * (x * u).sum())
    for found, known in zip((*values, *images), (*expected, *slopes), strict=True):
        torch.testing.assert_close(found, known)


def test_a_tangent_inside_a_tangent() -> None:
    x, u = torch.randn(2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def slope(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return pushed(lambda x: (x**3,), [x], [u])[1]

    (second,) = pushed(slope, [x], [u])[1]
    torch.testing.assert_close(second, 6 * x * u * u)
    by_torch = torch.func.jvp(lambda x: slope(x)[0], (x,), (u,))[1]
    torch.testing.assert_close(by_torch, second)


def test_batches_of_tangents() -> None:
    x = torch.linspace(1, 2, 3, dtype=torch.float64)
    (images,) = batched(
        lambda t: pushed(lambda x: (x.cumprod(0),), [x], [t])[1], [torch.eye(3).double()], 3
    )
    expected = torch.autograd.functional.jacobian(lambda x: x.cumprod(0), x)
    torch.testing.assert_close(images.T, expected)


def test_an_error_in_a_tangent_leaves_no_level_behind() -> None:
    def fails(x: torch.Tensor) -> tuple[torch.Tensor]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        pushed(fails, [torch.ones(2)], [torch.ones(2)])
    (image,) = pushed(lambda x: (2 * x,), [torch.ones(2)], [torch.ones(2)])[1]
    assert image.tolist() == [2, 2]
