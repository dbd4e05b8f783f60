"""Few cases of many parameters: each value of one with each value of every other."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any


def pairs(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return cases in which all pairs of values of two parameters occur.

    For parameters of which at most two act together: that is where a third may hold any value.

    Args:
        axes: The values of each parameter.
    """
    every = [*product(*(range(len(axis)) for axis in axes))]
    missing = {pair for case in every for pair in _pairs(case)}
    found = []
    while missing:
        case = max(every, key=lambda each: len(missing.intersection(_pairs(each))))
        missing.difference_update(_pairs(case))
        found.append(tuple(axis[place] for axis, place in zip(axes, case, strict=True)))
    return found


def _pairs(case: tuple[int, ...]) -> list[Any]:
    return [*combinations(enumerate(case), 2)]
