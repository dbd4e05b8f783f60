"""Tell those who time chunks what of their time prepares for later ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from autodiff_core._engines.listening import listening


@dataclass
class Preparation:
    """What engines prepare while a chunk is computed.

    Attributes:
        measuring: Makes the context in which an engine prepares for chunks to come.
        happened: Whether one has.
        continues: Whether the next chunk of the same size prepares for others as well.
    """

    measuring: Callable[[], AbstractContextManager[Any]]
    happened: bool = False
    continues: bool = False


_noted: list[Preparation] = []


def noting_preparation(
    measuring: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> AbstractContextManager[Preparation]:
    """Yield what says whether a chunk that is computed in the body prepares for others.

    Args:
        measuring: Makes the context in which an engine prepares, to take its time, for example.
    """
    return listening(_noted, Preparation(measuring))


@contextmanager
def preparing() -> Iterator[None]:
    """Enter the contexts of all who ask: the body takes time that later chunks do not take."""
    with ExitStack() as contexts:
        for each in _noted:
            each.happened = True
            contexts.enter_context(each.measuring())
        yield


def announce_preparation() -> None:
    """Tell all who ask that the next chunk of this size prepares for others."""
    for each in _noted:
        each.continues = True
