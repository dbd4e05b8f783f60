"""Read the points of many files, one point per file."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from jobs.configuration.schema import FileSource
from jobs.errors import ConfigurationError
from jobs.sources.reading import read_source
from jobs.sources.source_array import SourceArray


def read_files(option: str, config: FileSource) -> dict[str, SourceArray]:
    """Read the arrays of all files that match a pattern, stacked along a leading dimension.

    Args:
        option: The option that names the source, for messages.
        config: The source; its path is a pattern such as ``geometries/*.npy``.

    Raises:
        ConfigurationError: No file matches, or the files differ in their arrays or shapes.
    """
    paths = sorted(glob.glob(config.path, recursive=True))
    if not paths:
        raise ConfigurationError(
            f"{option}.path={config.path}: there is no such file; points=files takes a pattern "
            "such as geometries/*.npy"
        )
    files = [read_source(option, replace(config, path=path)) for path in paths]
    first = files[0]
    for path, arrays in zip(paths, files, strict=True):
        shapes, expected = _shapes(arrays), _shapes(first)
        if shapes != expected:
            raise ConfigurationError(
                f"{option}.path={config.path}: {path} holds {shapes} and {paths[0]} {expected}; "
                "valid are the same arrays in all files"
            )
    return {
        name: SourceArray(np.stack([_numpy(arrays[name]) for arrays in files]), config.path)
        for name in first
    }


def _shapes(arrays: Mapping[str, SourceArray]) -> str:
    return ", ".join(f"{name} {array.shape}".strip() for name, array in arrays.items())


def _numpy(array: SourceArray) -> np.ndarray:
    values = array.values
    return values.numpy() if isinstance(values, Tensor) else np.asarray(values[()])


def count_points(arrays: Mapping[str, SourceArray]) -> int:
    """Return the length of the leading dimension that all arrays share.

    Raises:
        ConfigurationError: The lengths differ, or there is no such dimension.
    """
    counts = {array.shape[:1] for array in arrays.values()}
    if len(counts) != 1 or counts == {()} or counts == {(0,)}:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ConfigurationError(
            f"points: all inputs need the same leading dimension over points, of at least 1; their "
            f"shapes are {shapes}"
        )
    ((count,),) = counts
    return count
