"""Derivatives of complex functions as one matrix, by one convention for both modes.

For an output y and an input x the entry of the matrix is

* x real: dy/dx, complex where y is;
* x complex, y real: dy/d(Re x) + i dy/d(Im x), the gradient as torch defines it;
* x and y complex: the complex derivative dy/dx, which exists only for holomorphic functions
  (those with y(x + it) - y(x) = i (y(x + t) - y(x)) to first order); others raise an error.

torch's reverse mode gives conj(dy/dx) u for a holomorphic function and keeps only the real part
for a real input; its forward mode gives (dy/dx) t. Reference: K. Kreutz-Delgado, "The Complex
Gradient Operator and the CR-Calculus" (2009).

The convention does not apply to the products (vjp, jvp, vhp, hvp), which are those of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autodiff_core._block import AxisLayout
from autodiff_core._engines.agreement import Precision, exceeds
from autodiff_core._errors import NotHolomorphicError
from autodiff_core._tensors.vectors import StackedVectors, StandardBasis, Vector, Vectors

Apply = Callable[[Vectors, int, int], tuple[Tensor, ...]]
"""Pulls back or pushes forward a range of vectors and returns the stacked images."""


def complex_rows(
    pullback: Apply,
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    points: int | None,
    precision: Precision,
) -> Callable[[int, int], tuple[Tensor, ...]]:
    """Return a function that computes rows of the matrix from pullbacks.

    Args:
        pullback: The vector-Jacobian product.
        outputs: The outputs at the point.
        inputs: The inputs.
        points: The number of points, where there are many.
        precision: The least precise dtype that the derivative runs through.

    Returns:
        A function of a range of rows that returns a tensor (rows, *input.shape) for each input.

    Raises:
        NotHolomorphicError: The function has complex inputs and outputs and is not holomorphic.
    """
    _require_holomorphic(pullback, outputs, inputs, precision)
    basis = StandardBasis(outputs, points=points)
    imaginary = StandardBasis(outputs, points=points, factor=1j)
    some_real = not all(tensor.is_complex() for tensor in inputs)

    layout = AxisLayout.of(outputs, points=points)

    def rows(start: int, stop: int) -> tuple[Tensor, ...]:
        pieces = pullback(basis, start, stop)
        of_complex = _lines_of_complex(layout, start, stop)
        if not bool(of_complex.any()):
            return pieces
        seconds = pullback(imaginary, start, stop) if some_real else pieces
        return tuple(
            _conjugate_where(of_complex, piece)
            if given.is_complex()
            else torch.complex(piece, second)
            for piece, second, given in zip(pieces, seconds, inputs, strict=True)
        )

    return rows


def complex_columns(
    pushforward: Apply,
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    points: int | None,
    precision: Precision,
) -> Callable[[int, int], tuple[Tensor, ...]]:
    """Return a function that computes columns of the matrix from pushforwards.

    The arguments and errors are those of `complex_rows`; the result is a function of a range of
    columns that returns a tensor (columns, *output.shape) for each output.
    """
    _require_holomorphic(pushforward, inputs, outputs, precision)
    basis = StandardBasis(inputs, points=points)
    imaginary = StandardBasis(inputs, points=points, factor=1j)
    some_real = not all(tensor.is_complex() for tensor in outputs)

    layout = AxisLayout.of(inputs, points=points)

    def columns(start: int, stop: int) -> tuple[Tensor, ...]:
        pieces = pushforward(basis, start, stop)
        if not some_real or not bool(_lines_of_complex(layout, start, stop).any()):
            return pieces
        seconds = pushforward(imaginary, start, stop)
        return tuple(
            piece if output.is_complex() else torch.complex(piece, second)
            for piece, second, output in zip(pieces, seconds, outputs, strict=True)
        )

    return columns


def _lines_of_complex(layout: AxisLayout, start: int, stop: int) -> Tensor:
    """Return which lines of a range belong to complex tensors, bool (stop - start,)."""
    flags = torch.zeros(stop - start, dtype=torch.bool)
    for index, first, last in layout.overlaps(start, stop):
        offset = layout.offsets[index] - start
        flags[offset + first : offset + last] = layout.dtypes[index].is_complex
    return flags


def _conjugate_where(flags: Tensor, piece: Tensor) -> Tensor:
    shaped = flags.to(piece.device).view(-1, *(1,) * (piece.dim() - 1))
    return torch.where(shaped, piece.conj(), piece)


def _require_holomorphic(
    apply: Apply, sources: Sequence[Tensor], targets: Sequence[Tensor], precision: Precision
) -> None:
    """Check at a random vector that a real-linear map is complex-linear.

    A real-linear map L with L(it) = i L(t) for one random t has it for all t with probability
    one. Only pairs of complex tensors count.
    """
    if not any(tensor.is_complex() for tensor in sources):
        return
    vector = _random(sources)
    turned = tuple(None if part is None else part * 1j for part in vector)
    images = apply(StackedVectors(_dense(vector, sources)), 0, 1)
    turned_images = apply(StackedVectors(_dense(turned, sources)), 0, 1)
    for image, turned_image, target in zip(images, turned_images, targets, strict=True):
        if not target.is_complex() or not target.numel():
            continue
        size = image.abs().max() + turned_image.abs().max()
        difference = (turned_image - 1j * image).abs().max()
        relative = float(difference.detach() / size.detach()) if difference > 0 else 0.0
        if exceeds(relative, target.dtype, precision):
            raise NotHolomorphicError(
                "a complex output of this function (of second order its gradient, which torch "
                "conjugates) is not holomorphic in a complex input, so its derivative is no "
                "complex matrix; split the complex tensors into real and imaginary parts with "
                "torch.view_as_real"
            )


def _random(tensors: Sequence[Tensor]) -> Vector:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(tensor.shape, generator=generator, dtype=torch.complex128).to(
            tensor.device, tensor.dtype
        )
        if tensor.is_complex()
        else None
        for tensor in tensors
    )


def _dense(vector: Vector, tensors: Sequence[Tensor]) -> list[Tensor]:
    return [
        torch.zeros_like(tensor).detach()[None] if part is None else part[None]
        for part, tensor in zip(vector, tensors, strict=True)
    ]
