"""Products of the derivatives at many points, for the check of the blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autodiff_core import KnownPullback
from jobs.functions.at_points import PointsFunction, with_constants
from jobs.streams.at_points import mapped, parts_of_points, stacked
from jobs.streams.curvature_at_points import curvature_at_points
from jobs.streams.summed import value_and_product


def value_and_product_at_points(
    operation: str,
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    vector: Sequence[Tensor],
    *,
    seed: int,
    strategy: str,
    known: KnownPullback | None = None,
) -> tuple[Any, list[Tensor], list[Tensor]]:
    """Return values at all points, of second order gradients, and a product for each point.

    Args:
        operation: ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        function: The function of one point, or a `PointsFunction`.
        inputs: Its arguments, each with a leading dimension over points.
        vector: The vectors, each tensor with a leading dimension over points.
        seed: The seed of torch's generators.
        strategy: A strategy of `autodiff_core`.
        known: A product of all points in reverse mode, with which dual numbers are compared.

    Returns:
        The values, stacked, of second order their sum; the gradients; and the products, one tensor
        with a leading dimension over points for each tensor of the image.
    """
    is_second_order = operation in ("vhp", "hvp")
    call, constants = with_constants(function)
    values, gradients, products = [], [], []
    for start, given in parts_of_points((*inputs, *constants)):
        points = slice(start, start + len(given[0]))
        part, rest = given[: len(inputs)], given[len(inputs) :]
        vectors = tuple(tensor[points] for tensor in vector)
        if isinstance(function, PointsFunction) and function.kind is not None:
            value, gradient, image = curvature_at_points(
                operation, function, points, part, vectors, seed=seed, strategy=strategy
            )
        else:
            value, gradient, image = value_and_product(
                operation,
                _at_all(stacked(call, start), rest, is_second_order=is_second_order),
                part,
                vectors,
                seed=seed,
                strategy=strategy,
                known=None if known is None else _of_points(known, points),
            )
        values.append(value)
        gradients.append(gradient)
        products.append(image)
    join = sum if is_second_order else torch.cat
    value = mapped(lambda *tensors: join(tensors), *values)
    gradient, image = (
        [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
        for parts in (gradients, products)
    )
    return value, gradient, image


def _of_points(known: KnownPullback, points: slice) -> KnownPullback:
    parts = (known.outputs, known.cotangent, known.image)
    outputs, cotangent, image = (tuple(each[points] for each in part) for part in parts)
    return replace(known, outputs=outputs, cotangent=cotangent, image=image)


def _at_all(
    stacks: Callable[..., Any], constants: Sequence[Tensor], *, is_second_order: bool
) -> Callable[..., Any]:
    """Return the values at all points, of second order their sum.

    The points are independent of one another, so that the Hessian of the sum is block diagonal,
    with the Hessians of the points as blocks.
    """

    def at_all(*point: Tensor) -> Any:
        values = stacks(*point, *constants)
        return values.sum() if is_second_order else values

    return at_all
