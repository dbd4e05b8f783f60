"""Feed the bytes of tensors to a hash, without a copy of a whole tensor."""

from __future__ import annotations

import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from jobs.sources.source_array import BYTES_AT_ONCE

_MAX_THREADS = 8


class Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: memoryview | bytes, /) -> None:
        """Take more bytes."""


def update_with_tensor(digest: Digest, tensor: Tensor) -> None:
    """Feed the entries of a tensor, in their order, to a hash.

    In place of those of a large tensor it takes the SHA-256 of pieces of about 64 MiB, which
    several threads compute; what is not contiguous on the host is copied piece by piece.

    Args:
        digest: The hash.
        tensor: A dense tensor of any dtype and device.
    """
    plain = tensor.detach()
    if plain.numel() * plain.element_size() <= BYTES_AT_ONCE:
        if plain.numel():
            digest.update(_bytes(plain))
        return
    # By rows, whatever the layout in memory: equal tensors have equal hashes.
    row = math.prod(plain.shape[1:]) * plain.element_size()
    pieces = plain.split(max(1, BYTES_AT_ONCE // row))
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for each in pool.map(_digest, pieces):
            digest.update(each)


def _digest(piece: Tensor) -> bytes:
    return hashlib.sha256(_bytes(piece)).digest()


def _bytes(piece: Tensor) -> memoryview:
    flat = piece.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
