"""Sampling at the points of a grid by operators with exact rules.

As `torch.nn.functional.grid_sample`, in two or three dimensions: the cells that the points lie in
are integers, so constants, and the rest is arithmetic of elements.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

_CUBIC = -0.75  # torch's coefficient of the cubic convolution


def sampled(
    image: Tensor, grid: Tensor, interpolation: int, padding: int, align_corners: bool
) -> Tensor:
    """Return an image at points.

    Args:
        image: Shape (n, channels, *sizes).
        grid: Shape (n, *places, dimensions); the last coordinate is that of the first dimension.
        interpolation: 0 linear, 1 nearest, 2 cubic.
        padding: 0 zeros, 1 border, 2 reflection.
        align_corners: Whether -1 and 1 are the centres of the outer elements, or their edges.

    Returns:
        Shape (n, channels, *places).
    """
    sizes = image.shape[2:]
    coordinates = [
        _unnormalised(grid[..., len(sizes) - 1 - dim], size, align_corners)
        for dim, size in enumerate(sizes)
    ]
    if interpolation != 2:
        coordinates = [
            _inside(each, size, padding, align_corners)
            for each, size in zip(coordinates, sizes, strict=True)
        ]
    if interpolation == 1:
        taps = [[(each.detach().round(), None)] for each in coordinates]
    else:
        taps = [_taps(each, interpolation == 2) for each in coordinates]
    total = None
    for chosen in itertools.product(*taps):
        places = [place for place, _ in chosen]
        if interpolation == 2:
            places = [
                _inside(place, size, padding, align_corners)
                for place, size in zip(places, sizes, strict=True)
            ]
        part = _read(image, places)
        for _, weight in chosen:
            part = part if weight is None else part * weight.unsqueeze(1)
        total = part if total is None else total + part
    assert total is not None
    return total


def _unnormalised(coordinate: Tensor, size: int, align_corners: bool) -> Tensor:
    if align_corners:
        return (coordinate + 1) * ((size - 1) / 2)
    return ((coordinate + 1) * size - 1) / 2


def _inside(coordinate: Tensor, size: int, padding: int, align_corners: bool) -> Tensor:
    if padding == 0:
        return coordinate
    if padding == 2:
        low, span = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
        if span <= 0:
            return torch.zeros_like(coordinate)
        distance = (coordinate - low).abs()
        turns = (distance.detach() / span).floor()
        is_even = turns.remainder(2) == 0
        rest = distance - turns * span
        coordinate = torch.where(is_even, rest + low, span - rest + low)
    # A point outside stays at the border, so it has no derivative there.
    is_above = coordinate >= size - 1
    border = torch.zeros_like(coordinate).masked_fill(is_above, size - 1.0)
    return torch.where((coordinate > 0) & ~is_above, coordinate, border)


def _taps(coordinate: Tensor, is_cubic: bool) -> list[tuple[Tensor, Tensor]]:
    """Return the elements around a coordinate, and their weights."""
    low = coordinate.detach().floor()
    part = coordinate - low
    if not is_cubic:
        return [(low, 1 - part), (low + 1, part)]
    distances = (part + 1, part, 1 - part, 2 - part)
    weights = [_outer(distances[0]), _inner(distances[1]), _inner(distances[2])]
    weights.append(_outer(distances[3]))
    return [(low + shift, weight) for shift, weight in zip((-1, 0, 1, 2), weights, strict=True)]


def _inner(distance: Tensor) -> Tensor:
    return ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1


def _outer(distance: Tensor) -> Tensor:
    return ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC


def _read(image: Tensor, places: list[Tensor]) -> Tensor:
    """Return elements of an image, zero outside; the shape is (n, channels, *places)."""
    flat, is_inside = None, None
    for place, size in zip(places, image.shape[2:], strict=True):
        number = place.detach().long()
        within = (number >= 0) & (number < size)
        number = number.clamp(0, size - 1)
        flat = number if flat is None else flat * size + number
        is_inside = within if is_inside is None else is_inside & within
    assert flat is not None
    assert is_inside is not None
    index = flat.flatten(1).unsqueeze(1).expand(-1, image.shape[1], -1)
    read = image.flatten(2).gather(2, index).view(*image.shape[:2], *flat.shape[1:])
    return torch.where(is_inside.unsqueeze(1), read, torch.zeros_like(read))
