"""Tensors side by side in memory, which together are one matrix without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor


def empty_side_by_side(
    count: int, shapes: Sequence[Sequence[int]], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """Memory for stacks of tensors, in which the first tensors of all stacks follow one another.

    Args:
        count: How many tensors each stack has.
        shapes: The shape of the tensors of each stack.
        dtype: The dtype of all.
        device: The device of all.

    Returns:
        For each stack a tensor of shape (count, *shape), of which a line is contiguous.
    """
    ends = [0, *accumulate(torch.Size(shape).numel() for shape in shapes)]
    whole = torch.empty((count, ends[-1]), dtype=dtype, device=device)
    return tuple(
        whole[:, first:last].view(count, *shape)
        for (first, last), shape in zip(pairwise(ends), shapes, strict=True)
    )


def joined(pieces: Sequence[Tensor]) -> Tensor:
    """Pieces of shape (..., elements), joined along their last dimension.

    Nothing is copied where there is only one, or where they lie side by side.
    """
    first = pieces[0]
    if len(pieces) == 1:
        return first
    width = sum(piece.shape[-1] for piece in pieces)
    if first.dim() == 2 and _are_side_by_side(pieces):
        return first.as_strided((len(first), width), first.stride(), first.storage_offset())
    return torch.cat(tuple(pieces), dim=-1)


def _are_side_by_side(pieces: Sequence[Tensor]) -> bool:
    first = pieces[0]
    place, step = first.storage_offset(), first.stride(0)
    for piece in pieces:
        is_next = (
            piece.dtype == first.dtype
            and piece.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
            and piece.storage_offset() == place
            and piece.stride() == (step, 1)
        )
        if not is_next:
            return False
        place += piece.shape[-1]
    return step >= place - first.storage_offset()
