"""The order in memory of the dimensions of stacked vectors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

_SHORT = 8
"""Elementwise operators with broadcasting take 3 to 6 times as long for lines of so few elements.

torch's inner loop runs along the dimension that is last in memory, and coordinates in space, of
which there are three, are usually last.
"""


def has_short_lines(shape: Sequence[int]) -> bool:
    """Return whether the last of several dimensions is better not the last one in memory."""
    return len(shape) > 1 and 1 < shape[-1] <= _SHORT


def planar(data: Tensor) -> Tensor:
    """Return stacked vectors with the last dimension next to that of the vectors in memory."""
    return data.movedim(-1, 1).contiguous().movedim(1, -1)


def is_planar(data: Tensor) -> bool:
    """Return whether the last dimension is not the last one in memory."""
    return data.stride(-1) > data.stride(-2) > 0


def memory_order(data: Tensor) -> list[int]:
    """Return the dimensions in their order in memory."""
    return sorted(range(data.dim()), key=data.stride, reverse=True)
