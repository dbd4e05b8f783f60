"""Spare Hydra one of two compositions of all options: a fifth of a second of each command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal.hydra import Hydra

_SWEEPS = {"--multirun", "-m"}


@contextmanager
def mode_by_the_arguments() -> Iterator[None]:
    """Let Hydra compose the options for their ``hydra.mode`` only where one can be set.

    Hydra composes all options to learn whether ``hydra.mode`` makes a sweep of them, and then
    composes them again for the job. Our own files set no mode: it can come from an argument that
    names an option of Hydra, or from files in a directory that such an argument or a flag
    (``--config-dir``) adds.
    """
    composed: Any = Hydra.get_mode
    can_be_set = any(
        "hydra" in each or (each.startswith("-") and each not in _SWEEPS) for each in sys.argv[1:]
    )

    def mode(*args: Any, **options: Any) -> Any:
        # The function of a user may use Hydra as well.
        Hydra.get_mode = composed
        return composed(*args, **options) if can_be_set else None

    Hydra.get_mode = mode
    try:
        yield
    finally:
        Hydra.get_mode = composed
