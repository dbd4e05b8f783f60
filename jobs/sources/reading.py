"""Read the arrays of a source by the reader of its format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jobs.configuration.schema import (
    ConstantSource,
    FileSource,
    Hdf5Source,
    NumpySource,
    ResultSource,
    SafetensorsSource,
    SourceConfig,
    TableSource,
    TorchSource,
)
from jobs.errors import ConfigurationError, unknown
from jobs.sources.hdf5 import read_hdf5, read_result
from jobs.sources.source_array import SourceArray
from jobs.sources.table import read_table
from jobs.sources.tensor_files import read_numpy, read_safetensors, read_torch


def read_source(option: str, config: SourceConfig) -> dict[str, SourceArray]:
    """Read the arrays of a file, or constants.

    Args:
        option: The option that names the source, such as ``inputs``, for messages.
        config: The source.

    Returns:
        Name to array; a single array without a name has the name "".

    Raises:
        ConfigurationError: The file does not exist, cannot be read or has no such array.
    """
    if isinstance(config, ConstantSource):
        return _constants(option, config.values)
    assert isinstance(config, FileSource)
    if not Path(config.path).is_file():
        raise ConfigurationError(
            f"{option}.path={config.path}: there is no such file; looked for "
            f"{Path(config.path).absolute()}"
        )
    arrays = _reader(config)(option, config)
    return {name: array.part(config.slice) for name, array in arrays.items()}


def _reader(config: FileSource) -> Callable[[str, Any], dict[str, SourceArray]]:
    readers: dict[type, Callable[[str, Any], dict[str, SourceArray]]] = {
        NumpySource: lambda option, c: _choose(option, "arrays", read_numpy(option, c), c.arrays),
        SafetensorsSource: lambda option, c: _choose(
            option, "tensors", read_safetensors(option, c), c.tensors
        ),
        TorchSource: lambda option, c: _choose(option, "tensors", read_torch(option, c), c.tensors),
        ResultSource: lambda option, c: _choose(
            option, "tensors", read_result(option, c), c.tensors
        ),
        Hdf5Source: read_hdf5,
        TableSource: read_table,
    }
    return readers[type(config)]


def _choose(
    option: str, key: str, arrays: Mapping[str, SourceArray], names: Iterable[str] | None
) -> dict[str, SourceArray]:
    if names is None:
        return dict(arrays)
    for name in names:
        if name not in arrays:
            raise unknown(f"{option}.{key}", name, arrays)
    return {name: arrays[name] for name in names}


def _constants(option: str, values: Mapping[str, Any]) -> dict[str, SourceArray]:
    if not values:
        raise ConfigurationError(
            f"{option}.values: a value is needed for each tensor, such as {option}.values.x=[1,2]"
        )
    arrays = {}
    for name, value in values.items():
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ConfigurationError(
                f"{option}.values.{name}={value}: the lists within have different lengths"
            ) from error
        if array.dtype.kind not in "fib":
            raise ConfigurationError(
                f"{option}.values.{name}={value}: valid are numbers and nested lists of numbers"
            )
        arrays[str(name)] = SourceArray(array, f"{option}.values.{name}")
    return arrays
