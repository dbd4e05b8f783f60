"""What an analysis finds: arrays with their errors, and how they were found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Fact = str | int | float | bool


@dataclass(frozen=True)
class Answer:
    """One quantity of a matrix, or of each of many points along a leading dimension.

    ``numpy.asarray(answer)`` gives the values, ``float(answer)`` a single one.

    Attributes:
        name: The quantity: ``eigenvalues``, ``trace`` and so on.
        values: The numbers, float64 or complex128.
        error: A bound or an estimate of their absolute error, of the same shape or a single number.
        error_kind: What ``error`` is, in words.
        method: How they were computed.
        summary: The figures as one line.
        request: What was asked for: answers with the same name and request are the same.
        facts: Further figures, by name.
        arrays: Further arrays, by name.
        tiles: Computes the values in tiles on and below the diagonal, where they are too many.
        shape: Their shape then.
    """

    name: str
    values: np.ndarray
    error: np.ndarray | float
    error_kind: str
    method: str
    summary: str
    request: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    tiles: Callable[[], Iterator[tuple[slice, slice, np.ndarray]]] | None = None
    shape: tuple[int, ...] = ()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.values, dtype=dtype)

    def __float__(self) -> float:
        return float(self.values)


def figures(values: np.ndarray, most: int = 3) -> str:
    """Return the first and the last of some numbers, or their range if each point has some."""
    flat = np.ravel(values)
    if not flat.size:
        return "none"
    if values.ndim > 1:
        return f"{_number(flat.min())} to {_number(flat.max())} over {len(values)} points"
    if len(flat) <= 2 * most:
        return ", ".join(map(_number, flat))
    ends = (", ".join(map(_number, part)) for part in (flat[:most], flat[-most:]))
    return " … ".join(ends)


def _number(value: Any) -> str:
    return f"{value:.6g}"
