"""Tell those who time chunks that a chunk has prepared for the next ones as well."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from autodiff_core._engines.listening import listening


@dataclass
class Preparation:
    """Whether an engine has prepared for chunks to come.

    Attributes:
        happened: Whether it has.
    """

    happened: bool = False


_noted: list[Preparation] = []


def noting_preparation() -> AbstractContextManager[Preparation]:
    """Yield what says whether a chunk that is computed in the body prepares for others."""
    return listening(_noted, Preparation())


def note_preparation() -> None:
    """Tell all who ask that this chunk takes longer than the next ones of its size."""
    for each in _noted:
        each.happened = True
