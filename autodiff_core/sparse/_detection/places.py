"""Where in the user's code an operator was called."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

_FOREIGN = tuple(
    str(Path(path).resolve().parent) + os.sep
    for path in (torch.__file__, str(Path(__file__).parents[1]))
)


class Places:
    """The lines of operators, and of the backward passes of operators."""

    def __init__(self) -> None:
        """Start without any line."""
        self._forward: dict[int, str] = {}

    def current(self) -> str:
        """Return ``file:line`` of what is evaluated now; in a backward pass, of its operator."""
        node = torch._C._current_autograd_node()
        if node is not None:
            place = self.of(node)
            return f"the derivative of {place}" if place else f"the derivative {node.name()}"
        place = _line()
        # The node of this operator has been made just before.
        self._forward[_next_sequence_number() - 1] = place
        return place

    def of(self, node: Any) -> str:
        """Return the line that made a node of an autograd graph; empty if it is unknown."""
        return self._forward.get(node._sequence_nr(), "")


def _next_sequence_number() -> int:
    return torch._C._autograd._get_sequence_nr()  # pyright: ignore[reportAttributeAccessIssue]


def _line() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_FOREIGN) and not file.startswith("<"):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def named(operators: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return operators with the lines where they are called, in words."""
    lines: dict[str, list[str]] = {}
    for name, place in sorted(set(operators)):
        lines.setdefault(name, []).append(place)
    found = []
    for name, places in lines.items():
        known = [place for place in places if place]
        more = f" and {len(known) - 1} more" if len(known) > 1 else ""
        found.append(f"{name} ({known[0]}{more})" if known else name)
    return tuple(found)
