"""Name and flatten what a function returns."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from jobs.errors import ConfigurationError
from jobs.functions.loading import LoadedFunction
from jobs.sources.plain_tensors import unlike_plain


def nested(tensors: dict[str, Tensor]) -> Any:
    """Return a single tensor by itself, several as a tuple."""
    values = tuple(tensors.values())
    return values[0] if len(values) == 1 else values


def leaves_of(value: Any) -> list[Any]:
    """Return the outputs of a function as a list, whether it returned one or a container."""
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, tuple | list) else [value]


def named_outputs(function: LoadedFunction, value: Any) -> dict[str, Tensor]:
    """Return the outputs by name: known names, the keys of a dictionary, or numbered names.

    Raises:
        ConfigurationError: The outputs nest deeper than a tuple, list or dictionary of tensors,
            are not dense numbers in memory, or there are none.
    """
    leaves = leaves_of(value)
    if isinstance(value, dict):
        names = tuple(str(key) for key in value)
    elif isinstance(value, tuple | list):
        names = tuple(f"output{index}" for index in range(len(value)))
    else:
        names = ("output",)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise ConfigurationError(
            f"{function.name} returns a value of type {type(value).__name__} that is neither a "
            "tensor nor a tuple, list or dictionary of tensors"
        )
    for leaf, name in zip(leaves, function.outputs or names, strict=False):
        if reason := unlike_plain(leaf):
            raise ConfigurationError(f"function={function.reference} returns {name}: {reason}")
    if not leaves:
        raise ConfigurationError(f"{function.name} returns no tensors; valid is at least one")
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"{function.name} returns a dictionary two of whose keys are the same as text: "
            f"{', '.join(names)}"
        )
    return dict(zip(function.outputs or names, leaves, strict=True))
