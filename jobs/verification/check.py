"""The contract of a check of computed blocks, and the check that checks nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from autodiff_core import Block
from outputs import Probes


class Check(Protocol):
    """Compares blocks with independent numbers and keeps the figures.

    Attributes:
        tolerance: The largest relative error that passes.
        notes: What is wrong with some route to the derivative, as sentences for the user.
    """

    tolerance: float
    notes: tuple[str, ...]

    def error(self, block: Block) -> float:
        """Return the largest relative error of a block; 0 where nothing in it is checked."""
        ...

    def record(self, start: int, stop: int, error: float) -> None:
        """Count a block of the lines start, ..., stop - 1 that has passed with an error."""
        ...

    def on(self, device: torch.device) -> Check:
        """Return the check for blocks on another device or process, with nothing counted."""
        ...

    def complete(self, path: Path) -> None:
        """Check the whole matrix in its file, where lines by themselves could not be checked.

        Args:
            path: The file, in which every line is present.

        Raises:
            JobError: The matrix fails.
        """
        ...

    def figures(self) -> dict[str, Any]:
        """Return what the result file keeps."""
        ...

    def probes(self) -> Probes | None:
        """Return the vectors and products with which the file can be verified by itself."""
        ...


class NoCheck:
    """No check at all, for a stated reason."""

    tolerance = float("inf")
    notes: tuple[str, ...] = ()

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        self._reason = reason

    def error(self, block: Block) -> float:
        """Return 0: nothing is checked."""
        return 0.0

    def record(self, start: int, stop: int, error: float) -> None:
        """Count nothing."""

    def on(self, device: torch.device) -> NoCheck:
        """Return this check."""
        return self

    def complete(self, path: Path) -> None:
        """Check nothing."""

    def figures(self) -> dict[str, Any]:
        """Return only the reason."""
        return {"kind": "none", "reason": self._reason}

    def probes(self) -> Probes | None:
        """Return None: there are no probes."""
        return None
