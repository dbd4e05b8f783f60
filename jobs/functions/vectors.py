"""Load or draw the vectors of a product."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from jobs.configuration.schema import (
    SOURCES,
    LiveSource,
    NamedSource,
    RandomVectors,
    SourceConfig,
)
from jobs.errors import ConfigurationError, unknown
from jobs.functions.arguments import check_shapes, renamed
from jobs.functions.conversions import Conversion, conversions_of_arrays
from jobs.functions.random_arrays import Layout, draw
from jobs.sources.live import live_arrays
from jobs.sources.named import read_named
from jobs.sources.reading import read_source
from jobs.sources.source_array import SourceArray


def load_vectors(
    config: SourceConfig,
    like: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
    conversions: list[Conversion],
) -> dict[str, Tensor]:
    """Load the vectors of a product, stacked along a leading dimension.

    Args:
        config: The option `vectors`.
        like: The tensors that the vectors multiply; the vectors have their dtypes.
        dtype: The dtype of vectors that multiply integers.
        device: The device of the vectors.
        conversions: Takes what is done to the vectors.

    Returns:
        Tensor name to vectors, of shape (count, *shape of the tensor).

    Raises:
        ConfigurationError: The source does not exist or does not fit the tensors.
    """
    if not like:
        raise ConfigurationError("vectors: the function returns no tensors, so there are none")
    layouts = {name: (tuple(tensor.shape), _dtype(tensor, dtype)) for name, tensor in like.items()}
    arrays = renamed("vectors", _load(config, layouts), tuple(like))
    count = _common_count(arrays)
    check_shapes(arrays, {name: (count, *shape) for name, (shape, _) in layouts.items()})
    for name, array in arrays.items():
        array.require_numbers(layouts[name][1], name)
    named = [(name, array, layouts[name][1]) for name, array in arrays.items()]
    conversions += conversions_of_arrays("vectors", named, device)
    return {name: array.tensor(layouts[name][1], device) for name, array in arrays.items()}


def _dtype(tensor: Tensor, otherwise: torch.dtype) -> torch.dtype:
    is_number = tensor.is_floating_point() or tensor.is_complex()
    return tensor.dtype if is_number else otherwise


def _load(config: SourceConfig, layouts: Mapping[str, Layout]) -> dict[str, SourceArray]:
    def read(option: str, name: str, source: SourceConfig) -> dict[str, SourceArray]:
        if isinstance(source, RandomVectors):
            only = {key: layout for key, layout in layouts.items() if key == name}
            return _random_vectors(option, source, only)
        return read_source(option, source)

    if isinstance(config, RandomVectors):
        return _random_vectors("vectors", config, layouts)
    if isinstance(config, NamedSource):
        return read_named("vectors", config, read)
    if isinstance(config, LiveSource):
        return live_arrays("vectors", config.held, tuple(layouts))
    if config.source in SOURCES:
        return read_source("vectors", config)
    raise unknown("vectors", config.source, ("random", *SOURCES))


def _common_count(arrays: Mapping[str, SourceArray]) -> int:
    counts = {array.shape[:1] for array in arrays.values()}
    if len(counts) != 1 or counts == {()} or counts == {(0,)}:
        raise ConfigurationError(
            "vectors: all arrays need the same leading dimension over vectors; their shapes are "
            + ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        )
    ((count,),) = counts
    return count


def _random_vectors(
    option: str, config: RandomVectors, layouts: Mapping[str, Layout]
) -> dict[str, SourceArray]:
    if config.count < 1:
        raise ConfigurationError(f"{option}.count={config.count}: valid are integers from 1 on")
    stacked = {name: ((config.count, *shape), dtype) for name, (shape, dtype) in layouts.items()}
    drawn = draw(stacked, config.distribution, config.scale, config.seed, option)
    return {name: SourceArray(array, option) for name, array in drawn.items()}
