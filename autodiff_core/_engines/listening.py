"""Tell those who ask what engines do meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

_Listener = TypeVar("_Listener")


@contextmanager
def listening(listeners: list[_Listener], listener: _Listener) -> Iterator[_Listener]:
    """Yield a listener that is among others in the body."""
    listeners.append(listener)
    try:
        yield listener
    finally:
        # Others may be equal to it.
        listeners[:] = [each for each in listeners if each is not listener]
