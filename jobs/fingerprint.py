"""The hash of what determines the numbers of a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from jobs.configuration.schema import JobConfig
from jobs.functions.loading import LoadedFunction
from jobs.functions.variables import Variables
from jobs.sources.source_array import SourceArray


def fingerprint(config: JobConfig, variables: Variables, vectors: Mapping[str, Tensor]) -> str:
    """Hash everything on which the entries of the matrix depend.

    Device, chunk size, memory budget, shards and the location of the result are left out: they
    change how the numbers are computed, not what they are.

    Args:
        config: The options.
        variables: The function with its point, constants and choices.
        vectors: The vectors of a product by tensor name, stacked; else empty.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    function = variables.function
    # The text is hashed, so that the order of these entries is part of the fingerprint.
    facts = {
        "operation": config.op,
        "strategy": config.strategy,
        "function": function.reference,
        "source": source_digest(function),
        "point": {name: _digest(tensor) for name, tensor in variables.point.items()},
        "vectors": {name: _digest(tensor) for name, tensor in vectors.items()},
        "constants": {name: _digest_of_array(a) for name, a in variables.constants.items()},
        "choices": variables.choices,
        "dtype": f"torch.{config.dtype}",
        "seed": config.seed,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def source_digest(function: LoadedFunction) -> str:
    """Hash the source files that a function comes from (SHA-256)."""
    contents = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in function.files)
    return hashlib.sha256(contents).hexdigest()


def _digest(tensor: Tensor) -> str:
    header = f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    return hashlib.sha256(header + _bytes(tensor)).hexdigest()


def _digest_of_array(array: SourceArray) -> str:
    """Hash the values of an array that may be larger than memory."""
    digest = hashlib.sha256(str(array.shape).encode())
    for piece in array.pieces():
        digest.update(str(piece.dtype).encode() + _bytes(piece))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    # torch may give an empty tensor strides that it then refuses to view.
    return b"" if not plain.numel() else plain.view(torch.uint8).numpy().tobytes()
