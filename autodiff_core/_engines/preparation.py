"""Tell those who time chunks that a chunk has prepared for the next ones as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Preparation:
    """Whether an engine has prepared for chunks to come.

    Attributes:
        happened: Whether it has.
    """

    happened: bool = False


_noted: list[Preparation] = []


@contextmanager
def noting_preparation() -> Iterator[Preparation]:
    """Yield what says whether a chunk that is computed in the body prepares for others."""
    found = Preparation()
    _noted.append(found)
    try:
        yield found
    finally:
        _noted.remove(found)


def note_preparation() -> None:
    """Tell all who ask that this chunk takes longer than the next ones of its size."""
    for each in _noted:
        each.happened = True
