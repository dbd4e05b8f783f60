"""Read the arrays of a source by the reader of its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from jobs.errors import ConfigurationError
from jobs.sources.files import require_file
from jobs.sources.hdf5 import read_hdf5, read_result
from jobs.sources.source_array import SourceArray
from jobs.sources.table import read_table
from jobs.sources.tensor_files import chosen, read_numpy, read_safetensors, read_torch


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
    require_file(f"{option}.path", config.path)
    arrays = _reader(config)(option, config)
    return {name: array.part(config.slice) for name, array in arrays.items()}


def _reader(config: FileSource) -> Callable[[str, Any], dict[str, SourceArray]]:
    readers: dict[type, Callable[[str, Any], dict[str, SourceArray]]] = {
        NumpySource: read_numpy,
        SafetensorsSource: read_safetensors,
        TorchSource: read_torch,
        ResultSource: _read_result,
        Hdf5Source: read_hdf5,
        TableSource: read_table,
    }
    return readers[type(config)]


def _read_result(option: str, config: ResultSource) -> dict[str, SourceArray]:
    arrays = read_result(option, config)
    return {name: arrays[name] for name in chosen(f"{option}.tensors", arrays, config.tensors)}


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
        arrays[str(name)] = SourceArray(array, f"{option}.values.{name}", is_text=True)
    return arrays
