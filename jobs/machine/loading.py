"""Load torch and what needs it, without Python's collector of cyclic garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_modules() -> Iterator[None]:
    """Collect no garbage while the body imports torch, and freeze what it has loaded.

    It is hundreds of thousands of objects that live as long as the process. The collector would
    walk through all of them a few times, a tenth of a second each. A later job of a sweep finds
    torch loaded: what the job before it has left is to be collected.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()
