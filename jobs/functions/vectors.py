"""Load or draw the vectors of a product."""

from __future__ import annotations

import math
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
from jobs.functions.random_arrays import DISTRIBUTIONS as STORED
from jobs.functions.random_arrays import Layout, draw
from jobs.sources.live import live_arrays
from jobs.sources.named import read_named
from jobs.sources.reading import read_source
from jobs.sources.source_array import SourceArray
from outputs import DrawnVectors, TensorSpec


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


def vectors_to_draw(
    config: SourceConfig, like: Mapping[str, Tensor], dtype: torch.dtype
) -> DrawnVectors | None:
    """Return what each vector of a product is drawn from; None if vectors are loaded and stored.

    Args:
        config: The option `vectors`.
        like: The tensors that the vectors multiply; the vectors have their dtypes.
        dtype: The dtype of vectors that multiply integers.

    Raises:
        ConfigurationError: An option is not valid.
    """
    if not isinstance(config, RandomVectors) or not _is_drawn("vectors", config):
        return None
    if not 0 <= config.seed < 2**63:
        raise ConfigurationError(
            f"vectors.seed={config.seed}: valid is an integer from 0 to 2^63 - 1"
        )
    _require_count("vectors", config)
    if not math.isfinite(config.scale) or config.scale == 0:
        raise ConfigurationError(f"vectors.scale={config.scale}: valid is a number other than 0")
    specs = tuple(
        TensorSpec(name, tuple(tensor.shape), str(_dtype(tensor, dtype)).removeprefix("torch."))
        for name, tensor in like.items()
    )
    return DrawnVectors(config.distribution, config.seed, config.count, specs, config.scale)


def _is_drawn(option: str, config: RandomVectors) -> bool:
    """Return whether vectors are drawn one by one, and not stored.

    Raises:
        ConfigurationError: The distribution is unknown, or is not for the one or the other.
    """
    if config.distribution not in (valid := (*STORED, *DrawnVectors.DISTRIBUTIONS)):
        raise unknown(f"{option}.distribution", config.distribution, dict.fromkeys(valid))
    stored = config.distribution in STORED if config.stored is None else config.stored
    valid = STORED if stored else DrawnVectors.DISTRIBUTIONS
    if config.distribution not in valid:
        raise ConfigurationError(
            f"{option}.stored={str(stored).lower()} {option}.distribution={config.distribution}: "
            f"valid distributions of vectors that are {'stored' if stored else 'drawn one by one'} "
            f"are {', '.join(valid)}"
        )
    return not stored


def _require_count(option: str, config: RandomVectors) -> None:
    if config.count < 1:
        raise ConfigurationError(f"{option}.count={config.count}: valid are integers from 1 on")


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
    if _is_drawn(option, config):
        raise ConfigurationError(
            f"{option}: vectors that are not stored are all of vectors=random, and no single tensor"
        )
    _require_count(option, config)
    stacked = {name: ((config.count, *shape), dtype) for name, (shape, dtype) in layouts.items()}
    drawn = draw(stacked, config.distribution, config.scale, config.seed, option)
    return {name: SourceArray(array, option) for name, array in drawn.items()}
