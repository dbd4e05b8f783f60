"""Where tensors come from: what the function takes, and the vectors of a product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from jobs.configuration.schema import (
    SOURCES,
    FileSource,
    NamedSource,
    RandomInputs,
    RandomVectors,
    SourceConfig,
)
from jobs.errors import ConfigurationError, unknown
from jobs.functions.loading import LoadedFunction, argument_names
from jobs.sources import SourceArray, read_source, source_of_tensor
from jobs.streams.at_points import count_points, read_files

DISTRIBUTIONS = ("normal", "uniform")


def load_arguments(
    config: SourceConfig, function: LoadedFunction, dtype: torch.dtype, points: str | None = None
) -> dict[str, SourceArray]:
    """What the function takes, not yet converted and, where the format allows, not yet read.

    Args:
        config: The option `inputs`.
        function: The function; its default point gives names and shapes where it has one.
        dtype: The dtype of random numbers.
        points: The option `points`: with ``leading`` and ``files`` the arrays have a leading
            dimension over points.

    Returns:
        Argument name to array, in the order of the arguments.

    Raises:
        ConfigurationError: The source does not exist or does not fit the function.
    """
    if config.source == "default":
        return _default_point(function)
    if isinstance(config, RandomInputs):
        arrays = _random_inputs("inputs", config, function, dtype)
    elif isinstance(config, NamedSource):
        arrays = {}
        for name, each in _named(config, "inputs").items():
            option = f"inputs.tensors.{name}"
            if isinstance(each, RandomInputs):
                found = _random_inputs(option, each, _only(function, name), dtype)
            else:
                found = _read(option, each, points)
            arrays[name] = _single(option, found)
    elif config.source in SOURCES:
        arrays = _read("inputs", config, points)
    else:
        raise unknown("inputs", config.source, ("default", "random", *SOURCES))
    named = _named_like_arguments(arrays, function)
    leading = () if points is None else (count_points(named),)
    if function.point is not None:
        shapes = {name: (*leading, *tensor.shape) for name, tensor in function.point.items()}
        _check_shapes(named, shapes)
    return named


def _read(option: str, config: SourceConfig, points: str | None) -> dict[str, SourceArray]:
    if points == "files":
        assert isinstance(config, FileSource)
        return read_files(option, config)
    return read_source(option, config)


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
    arrays = _renamed("vectors", arrays, tuple(like))
    counts = {array.shape[:1] for array in arrays.values()}
    if len(counts) != 1 or counts == {()} or counts == {(0,)}:
        raise ConfigurationError(
            "vectors: all arrays need the same leading dimension over vectors; their shapes are "
            + ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        )
    ((count,),) = counts
    _check_shapes(arrays, {name: (count, *shape) for name, shape in shapes.items()})
    for name, array in arrays.items():
        array.require_numbers(dtypes[name], name)
    return {name: array.tensor(dtypes[name], device) for name, array in arrays.items()}


def draw(
    layouts: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    distribution: str,
    scale: float,
    seed: int,
    option: str,
) -> dict[str, np.ndarray]:
    """Draw arrays from a generator of their own, the same for every dtype up to rounding.

    Args:
        layouts: Name to shape and to the dtype that decides between real and complex numbers.
        distribution: One of `DISTRIBUTIONS`.
        scale: What they are multiplied with.
        seed: Of the generator.
        option: The option that asks for them, for messages.

    Raises:
        ConfigurationError: An unknown distribution or a seed that is none.
    """
    if distribution not in DISTRIBUTIONS:
        raise unknown(f"{option}.distribution", distribution, DISTRIBUTIONS)
    if not 0 <= seed < 2**63:
        raise ConfigurationError(f"{option}.seed={seed}: valid is an integer from 0 to 2^63 - 1")
    generator = np.random.default_rng(seed)
    sample: Callable[[tuple[int, ...]], np.ndarray]
    sample = generator.standard_normal if distribution == "normal" else generator.random
    drawn = {}
    for name, (shape, dtype) in layouts.items():
        values = np.asarray(sample(shape))
        if dtype.is_complex:
            values = values + 1j * np.asarray(sample(shape))
        drawn[name] = np.asarray(scale * values)
    return drawn


def _default_point(function: LoadedFunction) -> dict[str, SourceArray]:
    if function.point is None:
        raise ConfigurationError(
            f"inputs=default: {function.name} has no default point; valid are function.point="
            "mypackage.module:name, inputs=random with inputs.shapes=[[...]], and the files of "
            f"inputs={', '.join(SOURCES)}"
        )
    return {
        name: source_of_tensor(tensor, function.origin) for name, tensor in function.point.items()
    }


def _named(config: NamedSource, option: str) -> dict[str, SourceConfig]:
    if not config.tensors:
        raise ConfigurationError(
            f"{option}=named: a source is needed for each tensor, such as {option}.tensors.x=x.npy"
        )
    return config.tensors


def _only(function: LoadedFunction, name: str) -> LoadedFunction:
    """A function's default point cut to one argument."""
    point = (
        None
        if function.point is None
        else {key: tensor for key, tensor in function.point.items() if key == name}
    )
    return replace(function, arguments=(name,), point=point or None)


def _single(option: str, found: Mapping[str, SourceArray]) -> SourceArray:
    if len(found) != 1:
        raise ConfigurationError(
            f"{option}: the source holds {', '.join(found)}; choose one of them"
        )
    return next(iter(found.values()))


def _random_inputs(
    option: str, config: RandomInputs, function: LoadedFunction, dtype: torch.dtype
) -> dict[str, SourceArray]:
    layouts = {
        name: (shape, dtype) for name, shape in _random_shapes(option, config, function).items()
    }
    drawn = draw(layouts, config.distribution, config.scale, config.seed, option)
    return {name: SourceArray(array, option) for name, array in drawn.items()}


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


def _random_shapes(
    option: str, config: RandomInputs, function: LoadedFunction
) -> dict[str, tuple[int, ...]]:
    if config.shapes is not None:
        if any(length < 0 for shape in config.shapes for length in shape):
            raise ConfigurationError(
                f"{option}.shapes={config.shapes}: the length of a dimension is 0 or more"
            )
        names = argument_names(function.arguments, len(config.shapes))
        return {name: tuple(shape) for name, shape in zip(names, config.shapes, strict=True)}
    if function.point is None:
        raise ConfigurationError(
            f"{option}=random: the shapes of the arguments of {function.name} are not known; give "
            f"them in order, such as {option}.shapes=[[10,3],[10]]"
        )
    return {name: tuple(tensor.shape) for name, tensor in function.point.items()}


def _named_like_arguments(
    arrays: dict[str, SourceArray], function: LoadedFunction
) -> dict[str, SourceArray]:
    if function.arguments is not None:
        return _renamed("inputs", arrays, function.arguments)
    if len(arrays) == 1 and "" in arrays:
        return {"input": arrays[""]}
    return arrays


def _renamed(
    option: str, arrays: dict[str, SourceArray], names: tuple[str, ...]
) -> dict[str, SourceArray]:
    """Arrays in the order of the names they stand for; a single one needs no name of its own."""
    if set(arrays) == set(names):
        return {name: arrays[name] for name in names}
    if len(arrays) == len(names) == 1:
        return dict(zip(names, arrays.values(), strict=True))
    given = ", ".join(name or "a single array" for name in arrays)
    raise ConfigurationError(
        f"{option}: the source holds {given or 'nothing'}; the function needs {', '.join(names)}"
    )


def _check_shapes(
    arrays: Mapping[str, SourceArray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ConfigurationError(
                f"{arrays[name].origin}: {name} has the shape {arrays[name].shape}; the function "
                f"needs {shape}"
            )
