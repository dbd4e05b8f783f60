"""Load the arguments of the function of a job, in the shapes that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from jobs.configuration.schema import (
    SOURCES,
    AtomsSource,
    FileSource,
    Hdf5Source,
    LiveSource,
    NamedSource,
    PointsConfig,
    RandomInputs,
    SourceConfig,
)
from jobs.errors import ConfigurationError, did_you_mean, unknown
from jobs.functions.calling import argument_names, named_like_arguments
from jobs.functions.loading import LoadedFunction
from jobs.functions.random_arrays import draw
from jobs.sources.atoms import read_atoms
from jobs.sources.live import live_arrays
from jobs.sources.many_files import count_points, read_files
from jobs.sources.named import read_named
from jobs.sources.reading import read_source
from jobs.sources.separate_points import SeparatePoints, cut
from jobs.sources.source_array import SourceArray, source_of_tensor


def load_arguments(
    config: SourceConfig,
    function: LoadedFunction,
    dtype: torch.dtype,
    points: PointsConfig,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, SourceArray]:
    """Load the arguments, not yet converted and, where the format allows, not yet read.

    Args:
        config: The option `inputs`.
        function: The function; its default point, if any, gives names and shapes.
        dtype: The dtype of random numbers.
        points: The option `points`: of many points the arrays have a leading dimension over them.
        note: Receives what the user should know about the arguments.

    Returns:
        Argument name to array, in the order of the arguments.

    Raises:
        ConfigurationError: The source does not exist or does not fit the function.
    """
    if config.source == "default":
        arrays = _default_point(function)
        if points.by == "offsets":
            arrays = cut(arrays, points)
        if points.are_many:
            count_points(arrays)
        return arrays

    def read(option: str, name: str, source: SourceConfig) -> dict[str, SourceArray]:
        if isinstance(source, RandomInputs):
            return _random_inputs(option, source, _only(function, name), dtype)
        return _read(option, source, points)

    if isinstance(config, RandomInputs):
        arrays = _random_inputs("inputs", config, function, dtype)
    elif isinstance(config, NamedSource):
        arrays = read_named("inputs", config, read)
    elif isinstance(config, LiveSource):
        count = len(config.held) if isinstance(config.held, tuple) else 1
        arrays = live_arrays("inputs", config.held, argument_names(function.arguments, count))
    elif isinstance(config, AtomsSource):
        arrays = read_atoms("inputs", config, *_taken(config, function), points)
    elif config.source in SOURCES:
        arrays = _without_surplus(config, _read("inputs", config, points), function, note)
    else:
        raise unknown("inputs", config.source, ("default", "random", "atoms", *SOURCES))
    if points.by == "offsets":
        arrays = cut(arrays, points)
    named = named_like_arguments("inputs", arrays, function.arguments, function.signature)
    leading = (count_points(named),) if points.are_many else ()
    are_separate = any(isinstance(each, SeparatePoints) for each in named.values())
    if function.point is not None and not are_separate:
        shapes = {name: (*leading, *tensor.shape) for name, tensor in function.point.items()}
        check_shapes(named, shapes)
    return named


def _read(option: str, config: SourceConfig, points: PointsConfig) -> dict[str, SourceArray]:
    if points.by == "files":
        assert isinstance(config, FileSource)
        return read_files(option, config)
    return read_source(option, config)


def _taken(config: AtomsSource, function: LoadedFunction) -> tuple[list[str], list[str]]:
    """Return the arguments that a function takes, and those that it needs."""
    needed = function.arguments
    if needed is None:
        if not config.names:
            raise ConfigurationError(
                f"inputs=atoms: the arguments of {function.name} are not known; inputs.names says "
                "what they are, such as inputs.names.x=positions"
            )
        return [], []
    taken = function.signature.names if function.signature else ()
    return [*dict.fromkeys((*needed, *taken))], [*needed]


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


def _only(function: LoadedFunction, name: str) -> LoadedFunction:
    """Return a function with one argument and the part of the default point that belongs to it."""
    point = (
        None
        if function.point is None
        else {key: tensor for key, tensor in function.point.items() if key == name}
    )
    return replace(function, arguments=(name,), point=point or None, signature=None)


def _random_inputs(
    option: str, config: RandomInputs, function: LoadedFunction, dtype: torch.dtype
) -> dict[str, SourceArray]:
    layouts = {
        name: (shape, dtype) for name, shape in _random_shapes(option, config, function).items()
    }
    drawn = draw(layouts, config.distribution, config.scale, config.seed, option)
    return {name: SourceArray(array, option) for name, array in drawn.items()}


def _random_shapes(
    option: str, config: RandomInputs, function: LoadedFunction
) -> dict[str, tuple[int, ...]]:
    if config.shapes is not None:
        if any(length < 0 for shape in config.shapes for length in shape):
            raise ConfigurationError(
                f"{option}.shapes={config.shapes}: the length of a dimension is 0 or more"
            )
        names = argument_names(function.arguments, len(config.shapes), function.signature)
        return {name: tuple(shape) for name, shape in zip(names, config.shapes, strict=True)}
    if function.point is None:
        raise ConfigurationError(
            f"{option}=random: the shapes of the arguments of {function.name} are not known; give "
            f"them in order, such as {option}.shapes=[[10,3],[10]]"
        )
    return {name: tuple(tensor.shape) for name, tensor in function.point.items()}


def _without_surplus(
    config: SourceConfig,
    arrays: dict[str, SourceArray],
    function: LoadedFunction,
    note: Callable[[str], None],
) -> dict[str, SourceArray]:
    """Leave out the arrays of a file that are no arguments, unless the user selected them.

    Raises:
        ConfigurationError: One has nearly the name of an argument, or `function.keywords` sets it.
    """
    names, signature = function.arguments, function.signature
    selected = [getattr(config, option, None) for option in ("arrays", "tensors", "columns")]
    if not isinstance(config, FileSource) or isinstance(config, Hdf5Source):
        return arrays
    if any(each is not None for each in selected) or names is None:
        return arrays
    taken = (*names, *(signature.names if signature else ()))
    further = [name for name in arrays if name not in taken]
    if not further or not {*names} <= {*arrays} or not {*taken} & {*arrays}:
        return arrays
    place = f"inputs.path={config.path}"
    for name in further:
        if signature and name in signature.bound:
            raise ConfigurationError(
                f"{place}: the file also holds {name}, which function.keywords.{name} sets; select "
                "what is meant, for example by inputs=named"
            )
        if did_you_mean(name, taken):
            raise ConfigurationError(
                f"{place}: the function takes {', '.join(taken)}, and the file also holds {name}, "
                "which may be meant for one of them; select what is meant, for example by "
                "inputs=named"
            )
    listed = ", ".join(further)
    if signature and signature.is_open and all(map(signature.takes, further)):
        note(f"{place} also holds {listed}: {function.name} takes arguments of any name")
        return arrays
    note(f"{place} also holds {listed}, which {function.name} does not take")
    return {name: array for name, array in arrays.items() if name in taken}


def renamed(
    option: str, arrays: dict[str, SourceArray], names: tuple[str, ...]
) -> dict[str, SourceArray]:
    """Return arrays by the names of the tensors they are for, in the order of these names.

    Args:
        option: The option that the arrays come from, for messages.
        arrays: The arrays; a single one may have any name.
        names: The names of the tensors.

    Raises:
        ConfigurationError: The names of the arrays are others.
    """
    if set(arrays) == set(names):
        return {name: arrays[name] for name in names}
    if len(arrays) == len(names) == 1:
        return dict(zip(names, arrays.values(), strict=True))
    given = ", ".join(name or "a single array" for name in arrays)
    raise ConfigurationError(
        f"{option}: the source holds {given or 'nothing'}; the function needs {', '.join(names)}"
    )


def check_shapes(
    arrays: Mapping[str, SourceArray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Check the shapes of arrays.

    Args:
        arrays: The arrays by name.
        expected: The shapes that the function needs, by the same names.

    Raises:
        ConfigurationError: A shape is another one.
    """
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ConfigurationError(
                f"{arrays[name].origin}: {name} has the shape {arrays[name].shape}; the function "
                f"needs {shape}"
            )
