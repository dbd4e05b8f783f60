"""Read the points of many files, one point per file."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import replace

from jobs.configuration.schema import FileSource
from jobs.errors import ConfigurationError
from jobs.sources.reading import read_source
from jobs.sources.separate_points import gathered
from jobs.sources.source_array import SourceArray


def read_files(option: str, config: FileSource) -> dict[str, SourceArray]:
    """Read the arrays of all files that match a pattern, stacked where they have one shape.

    Args:
        option: The option that names the source, for messages.
        config: The source; its path is a pattern such as ``geometries/*.npy``.

    Raises:
        ConfigurationError: No file matches, or the files differ in their arrays.
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
        if set(arrays) != set(first):
            raise ConfigurationError(
                f"{option}.path={config.path}: {path} holds {', '.join(arrays)} and {paths[0]} "
                f"{', '.join(first)}; valid are the same arrays in all files"
            )
    return {name: gathered(config.path, [arrays[name] for arrays in files]) for name in first}


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
