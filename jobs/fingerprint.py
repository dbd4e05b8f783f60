"""The hash of what determines the numbers of a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jobs.functions.loading import LoadedFunction
from jobs.sources import SourceArray


def fingerprint(
    *,
    operation: str,
    strategy: str,
    function: LoadedFunction,
    point: Mapping[str, Tensor],
    vectors: Mapping[str, Tensor],
    constants: Mapping[str, SourceArray],
    choices: Mapping[str, Any],
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
        "constants": {name: _digest_of_array(array) for name, array in constants.items()},
        "choices": dict(choices),
        "dtype": str(dtype),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def source_digest(function: LoadedFunction) -> str:
    """A hash of the source files that a function comes from."""
    contents = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in function.files)
    return hashlib.sha256(contents).hexdigest()


def _digest(tensor: Tensor) -> str:
    header = f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    return hashlib.sha256(header + _bytes(tensor)).hexdigest()


def _digest_of_array(array: SourceArray) -> str:
    """The digest of an array that may be larger than memory, by its values."""
    digest = hashlib.sha256(str(array.shape).encode())
    for piece in array.pieces():
        digest.update(str(piece.dtype).encode() + _bytes(piece))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().tobytes()
