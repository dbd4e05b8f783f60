"""The hash of what determines the numbers of a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from jobs.functions import LoadedFunction


def fingerprint(
    *,
    operation: str,
    strategy: str,
    function: LoadedFunction,
    point: Mapping[str, Tensor],
    vectors: Mapping[str, Tensor],
    dtype: torch.dtype,
    seed: int,
) -> str:
    """Hash everything on which the entries of the matrix depend.

    Device, chunk size, memory budget, shards and the place of the result are left out: they
    change how the numbers are computed, not what they are.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    facts = {
        "operation": operation,
        "strategy": strategy,
        "function": function.reference,
        "source": source_digest(function),
        "point": {name: _digest(tensor) for name, tensor in point.items()},
        "vectors": {name: _digest(tensor) for name, tensor in vectors.items()},
        "dtype": str(dtype),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def source_digest(function: LoadedFunction) -> str:
    """A hash of the source files that a function comes from."""
    contents = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in function.files)
    return hashlib.sha256(contents).hexdigest()


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    content = plain.view(torch.uint8).numpy().tobytes()
    header = f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    return hashlib.sha256(header + content).hexdigest()
