"""Feed the bytes of tensors to a hash, without a copy of a whole tensor."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from jobs.sources.source_array import BYTES_AT_ONCE


class Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: memoryview, /) -> None:
        """Take more bytes."""


def update_with_tensor(digest: Digest, tensor: Tensor) -> None:
    """Feed the entries of a tensor, in their order, to a hash.

    What is not contiguous on the host is copied in pieces of about 64 MiB.

    Args:
        digest: The hash.
        tensor: A dense tensor of any dtype and device.
    """
    plain = tensor.detach()
    if not plain.numel():
        return
    if plain.dim() == 0 or (_is_plain(plain) and plain.device.type == "cpu"):
        pieces = [plain]
    else:
        row = max(1, math.prod(plain.shape[1:])) * plain.element_size()
        pieces = plain.split(max(1, BYTES_AT_ONCE // row))
    for piece in pieces:
        flat = piece.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
