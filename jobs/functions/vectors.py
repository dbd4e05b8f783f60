"""Load or draw the vectors of a product."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from jobs.configuration.schema import (
    SOURCES,
    NamedSource,
    RandomVectors,
    SourceConfig,
)
from jobs.errors import ConfigurationError, unknown
from jobs.functions.arguments import _named, _single, check_shapes, renamed
from jobs.functions.random_arrays import draw
from jobs.sources import SourceArray, read_source


def load_vectors(
    config: SourceConfig,
    like: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Tensor]:
    """The vectors of a product, stacked along a leading dimension.

    Args:
        config: The option `vectors`.
        like: The tensors that the vectors multiply; they have the same dtypes.
        dtype: The dtype of vectors that multiply integers.
        device: Their device.

    Raises:
        ConfigurationError: The source does not exist or does not fit the tensors.
    """
    if not like:
        raise ConfigurationError("vectors: the function returns no tensors, so there are none")
    shapes = {name: tuple(tensor.shape) for name, tensor in like.items()}
    dtypes = {
        name: tensor.dtype if tensor.is_floating_point() or tensor.is_complex() else dtype
        for name, tensor in like.items()
    }
    layouts = {name: (shapes[name], dtypes[name]) for name in like}
    if isinstance(config, RandomVectors):
        arrays = _random_vectors("vectors", config, layouts)
    elif isinstance(config, NamedSource):
        arrays = {}
        for name, each in _named(config, "vectors").items():
            option = f"vectors.tensors.{name}"
            if isinstance(each, RandomVectors):
                found = _random_vectors(option, each, {k: layouts[k] for k in like if k == name})
            else:
                found = read_source(option, each)
            arrays[name] = _single(option, found)
    elif config.source in SOURCES:
        arrays = read_source("vectors", config)
    else:
        raise unknown("vectors", config.source, ("random", *SOURCES))
    arrays = renamed("vectors", arrays, tuple(like))
    counts = {array.shape[:1] for array in arrays.values()}
    if len(counts) != 1 or counts == {()} or counts == {(0,)}:
        raise ConfigurationError(
            "vectors: all arrays need the same leading dimension over vectors; their shapes are "
            + ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        )
    ((count,),) = counts
    check_shapes(arrays, {name: (count, *shape) for name, shape in shapes.items()})
    for name, array in arrays.items():
        array.require_numbers(dtypes[name], name)
    return {name: array.tensor(dtypes[name], device) for name, array in arrays.items()}


def _random_vectors(
    option: str,
    config: RandomVectors,
    layouts: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
) -> dict[str, SourceArray]:
    if config.count < 1:
        raise ConfigurationError(f"{option}.count={config.count}: valid are integers from 1 on")
    stacked = {name: ((config.count, *shape), dtype) for name, (shape, dtype) in layouts.items()}
    drawn = draw(stacked, config.distribution, config.scale, config.seed, option)
    return {name: SourceArray(array, option) for name, array in drawn.items()}
