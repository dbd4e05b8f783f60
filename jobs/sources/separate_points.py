"""Arrays of many points that are kept point by point, because they may differ in shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from jobs.configuration.schema import NumpySource, PointsConfig
from jobs.errors import ConfigurationError
from jobs.sources.files import require_file
from jobs.sources.source_array import SourceArray
from jobs.sources.tensor_files import read_numpy


@dataclass(frozen=True)
class SeparatePoints(SourceArray):
    """An array at each of many points, in `values`, a list of `SourceArray`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of points."""
        return (len(self.values),)

    @property
    def is_integral(self) -> bool:
        """Whether the numbers are integers or truth values, at the first point."""
        return self.values[0].is_integral


def separated(arguments: Mapping[str, SourceArray], count: int) -> list[dict[str, SourceArray]]:
    """Return the arrays of each point by name, of arrays with a leading dimension over points."""

    def at(array: SourceArray, number: int) -> SourceArray:
        if isinstance(array, SeparatePoints):
            return array.values[number]
        return replace(array, values=array.values[number])

    return [{n: at(array, number) for n, array in arguments.items()} for number in range(count)]


def stacked(origin: str, arrays: Sequence[SourceArray]) -> SourceArray:
    """Return arrays of one shape with a leading dimension over them."""
    return SourceArray(np.stack([as_numpy(array) for array in arrays]), origin)


def gathered(origin: str, parts: Sequence[SourceArray]) -> SourceArray:
    """Return the arrays of all points: stacked where they have one shape and dtype."""
    if len({(part.shape, part.dtype_name) for part in parts}) == 1:
        return stacked(origin, parts)
    return SeparatePoints([*parts], origin)


def as_numpy(array: SourceArray) -> np.ndarray:
    """Return the values of an array in memory."""
    values = array.values
    return values.numpy() if isinstance(values, Tensor) else np.asarray(values[()])


def cut(arrays: Mapping[str, SourceArray], points: PointsConfig) -> dict[str, SourceArray]:
    """Cut arrays along their leading dimension into points, by `points.offsets`.

    Raises:
        ConfigurationError: The offsets are not valid for an array.
    """
    offsets = _offsets(points.offsets)
    for name, array in arrays.items():
        if not array.shape or array.shape[0] != offsets[-1]:
            raise ConfigurationError(
                f"points.offsets: the last one is {offsets[-1]}; {name} ({array.origin}) has the "
                f"shape {array.shape}, and all inputs need this leading dimension"
            )
    spans = list(pairwise(offsets))
    return {
        name: SeparatePoints(
            [replace(array, values=array.values[a:b]) for a, b in spans], array.origin
        )
        for name, array in arrays.items()
    }


def _offsets(given: Any) -> list[int]:
    option = "points.offsets"
    if isinstance(given, str):
        require_file(option, given)
        source = NumpySource(source="numpy", path=given)
        (array,) = list(read_numpy(option, source).values())[:1] or [None]
        given = [] if array is None else np.asarray(array.values[()]).tolist()
    is_list = isinstance(given, list) and all(type(each) is int for each in given)
    if not is_list or len(given) < 2 or given[0] != 0 or any(np.diff(given) < 1):
        raise ConfigurationError(
            f"{option}={given}: valid are where each point begins in the leading dimension of the "
            "inputs, and where the last one ends, such as [0,9,21], or a .npy file of them; each "
            "is larger than the one before"
        )
    return given
