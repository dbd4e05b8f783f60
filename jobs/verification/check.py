"""The contract of a check of computed blocks."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from autodiff_core import Block
from outputs import Probes


class Check(Protocol):
    """Holds blocks against independent numbers and keeps the figures.

    Attributes:
        tolerance: The largest relative error that passes.
    """

    tolerance: float

    def error(self, block: Block) -> float:
        """The largest relative error of a block; 0 where nothing in it is checked."""
        ...

    def record(self, start: int, stop: int, error: float) -> None:
        """Count a block that has passed: its first line, the one past its last, its error."""
        ...

    def on(self, device: torch.device) -> Check:
        """The same for blocks on another device, in another process, with nothing counted."""
        ...

    def figures(self) -> dict[str, Any]:
        """What the result file keeps."""
        ...

    def probes(self) -> Probes | None:
        """The vectors and products with which the file can be verified again, by itself."""
        ...

    def __str__(self) -> str:
        """How it went, in one line."""
        ...


class NoCheck:
    """No check at all, for a stated reason."""

    tolerance = float("inf")

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        self._reason = reason

    def error(self, block: Block) -> float:
        """Nothing is checked."""
        return 0.0

    def record(self, start: int, stop: int, error: float) -> None:
        """Nothing is counted."""

    def on(self, device: torch.device) -> NoCheck:
        """The same."""
        return self

    def figures(self) -> dict[str, Any]:
        """Only the reason."""
        return {"kind": "none", "reason": self._reason}

    def probes(self) -> Probes | None:
        """There are none."""
        return None

    def __str__(self) -> str:
        """Say that nothing was checked."""
        return f"not at all: {self._reason}"
