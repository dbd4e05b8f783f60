"""Tensors that are adjacent in memory and form one matrix without a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor


def empty_side_by_side(
    count: int,
    shapes: Sequence[Sequence[int]],
    empty: Callable[[tuple[int, int]], Tensor],
) -> tuple[Tensor, ...]:
    """Return memory for stacks of tensors, interleaved as the lines of one matrix.

    Args:
        count: The number of tensors in each stack.
        shapes: The shape of the tensors of each stack.
        empty: Returns an uninitialized matrix of a given shape.

    Returns:
        For each stack a tensor of shape (count, *shape), of which each line is contiguous.
    """
    ends = [0, *accumulate(torch.Size(shape).numel() for shape in shapes)]
    whole = empty((count, ends[-1]))
    return tuple(
        whole[:, first:last].view(count, *shape)
        for (first, last), shape in zip(pairwise(ends), shapes, strict=True)
    )


def joined(pieces: Sequence[Tensor]) -> Tensor:
    """Return pieces of shape (..., elements) joined along their last dimension.

    A single piece, and pieces that are adjacent in memory, are not copied.
    """
    if len(pieces) == 1:
        return pieces[0]
    return _as_one(pieces) if _are_side_by_side(pieces) else torch.cat(tuple(pieces), dim=-1)


def _as_one(pieces: Sequence[Tensor]) -> Tensor:
    first = next(piece for piece in pieces if piece.numel())
    width = sum(piece.shape[-1] for piece in pieces)
    step = max(_step(first), width)
    return first.as_strided((len(first), width), (step, 1), first.storage_offset())


def _are_side_by_side(pieces: Sequence[Tensor]) -> bool:
    filled = [piece for piece in pieces if piece.numel()]
    if not filled or filled[0].dim() != 2:
        return False
    first = filled[0]
    place = first.storage_offset()
    for piece in filled:
        is_next = (
            piece.dtype == first.dtype
            and piece.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
            and piece.storage_offset() == place
            and _step(piece) == _step(first)
            and (piece.stride(1) == 1 or piece.shape[1] == 1)
        )
        if not is_next:
            return False
        place += piece.shape[1]
    return len(first) == 1 or _step(first) >= place - first.storage_offset()


def _step(piece: Tensor) -> int:
    """Return the distance of the lines in elements; 0 for one line, whose stride is arbitrary."""
    return piece.stride(0) if len(piece) > 1 else 0
