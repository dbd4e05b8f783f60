"""Tensors among the arguments that `function.keywords` sets: those of a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from jobs.configuration.named_sources import typed_source
from jobs.configuration.schema import SOURCES
from jobs.errors import ConfigurationError
from jobs.sources.reading import read_source


def with_tensors(option: str, node: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Replace mappings that describe a source, such as ``{source: numpy, path: x.npy}``.

    Args:
        option: The option that holds them, for messages.
        node: Mappings, lists and values, nested to any depth.
        dtype: The dtype of floating-point tensors; integers and truth values stay what they are.
        device: The device of the tensors.

    Raises:
        ConfigurationError: A source cannot be read, or holds several arrays.
    """
    if isinstance(node, list):
        return [with_tensors(option, each, dtype, device) for each in node]
    if not isinstance(node, Mapping):
        return node
    if node.get("source") not in SOURCES or not {"path", "values"} & {*node}:
        return {k: with_tensors(f"{option}.{k}", v, dtype, device) for k, v in node.items()}
    arrays = read_source(option, typed_source("inputs", option, dict(node)))
    if len(arrays) != 1:
        raise ConfigurationError(
            f"{option}: the source holds {', '.join(arrays)}; choose one of them"
        )
    ((name, array),) = arrays.items()
    array.require_numbers(dtype.to_complex(), name or "the array")
    return array.kept(dtype, device)
