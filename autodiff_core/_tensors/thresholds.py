"""Thresholds that decide by the size of stacked vectors how something is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_listeners: list[list[tuple[int, int]]] = []


def reaches(amount: int, threshold: int) -> bool:
    """Return whether an amount, in proportion to the number of vectors, reaches a threshold."""
    for each in _listeners:
        each.append((amount, threshold))
    return amount >= threshold


@contextmanager
def noting_thresholds() -> Iterator[list[tuple[int, int]]]:
    """Yield a list to which the amounts and thresholds that are compared inside are added."""
    found: list[tuple[int, int]] = []
    _listeners.append(found)
    try:
        yield found
    finally:
        # Another thread may note as well, and lists of the same thresholds are equal.
        _listeners[:] = [each for each in _listeners if each is not found]
