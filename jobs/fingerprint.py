"""The hash of what determines the numbers of a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from jobs.configuration.schema import JobConfig, LiveLoss, LossConfig, PythonLoss
from jobs.functions.importing import (
    import_module,
    import_target,
    imported,
    target_without_place,
)
from jobs.functions.loading import LoadedFunction
from jobs.functions.source_code import SourceCode, modules_of, source_code
from jobs.functions.variables import Variables
from jobs.machine.arithmetic import Arithmetic
from jobs.sources.source_array import SourceArray
from jobs.sources.tensor_digest import update_with_tensor
from outputs import DrawnVectors


def fingerprint(
    config: JobConfig,
    variables: Variables,
    vectors: Mapping[str, Tensor] | DrawnVectors,
    source: SourceCode,
) -> str:
    """Hash everything on which the entries of the matrix depend.

    Device, chunk size, memory budget, shards and the location of the result are left out: they
    change how the numbers are computed, not what they are.

    Args:
        config: The options.
        variables: The function with its point, constants and choices.
        vectors: The vectors of a product by tensor name, stacked, or what they are drawn from; else
            empty.
        source: The source of the function, from `source_of`.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    function = variables.function
    # The text is hashed, so that the order of these entries is part of the fingerprint.
    facts = {
        "operation": config.op,
        "strategy": config.strategy,
        "function": function.identity,
        "source": source.digest,
        "point": {name: _digest(tensor) for name, tensor in variables.point.items()},
        "vectors": asdict(vectors)
        if isinstance(vectors, DrawnVectors)
        else {name: _digest(tensor) for name, tensor in vectors.items()},
        "constants": {name: _digest_of_array(a) for name, a in variables.constants.items()},
        "choices": _without_places(variables.choices),
        "dtype": f"torch.{config.dtype}",
        "seed": config.seed,
    }
    facts |= Arithmetic.of_this_process().changes
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def source_of(function: LoadedFunction, loss: LossConfig) -> SourceCode:
    """Return the source on which the values of a function and of its loss depend.

    Args:
        function: The function.
        loss: The option `loss`.
    """
    # A built-in problem depends on its own folder only.
    if function.files and not (function.modules or function.parts):
        contents = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in function.files)
        return SourceCode(hashlib.sha256(contents).hexdigest(), (), ("torch",))
    starts, parts = function.modules, function.parts
    if isinstance(loss, LiveLoss):
        parts = (*parts, *imported(loss.modules))
    elif isinstance(loss, PythonLoss):
        starts = (*starts, import_module("loss.target", loss.target))
        parts = (*parts, *modules_of(import_target("loss.target", loss.target)))
    return source_code(starts, parts)


def _without_places(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choices with import paths that do not depend on where the project is."""
    loss = choices.get("loss", {})
    if "target" not in loss:
        return dict(choices)
    return {**choices, "loss": {**loss, "target": target_without_place(loss["target"])}}


def _digest(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    update_with_tensor(digest, tensor)
    return digest.hexdigest()


def _digest_of_array(array: SourceArray) -> str:
    """Hash the values of an array that may be larger than memory."""
    digest = hashlib.sha256(str(array.shape).encode())
    for piece in array.pieces():
        digest.update(str(piece.dtype).encode())
        update_with_tensor(digest, piece)
    return digest.hexdigest()
