"""Python's collector of cyclic garbage, which recording a program switches off."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect no cyclic garbage in the body.

    A program of thousands of steps is hundreds of thousands of objects, all of which stay alive.
    While they are made, the collector would walk through them again and again, which took up to a
    third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
