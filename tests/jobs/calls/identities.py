"""Live functions as a notebook defines them, and their identities."""

from typing import Any

import torch
from torch import nn

from jobs.functions.live.identity import identity_of


def identity(held: Any) -> str:
    return identity_of(held, "function").sha256


def made(source: str, name: str = "f", **names: Any) -> Any:
    """Define something as a notebook does, in a namespace of its own without a file."""
    space: dict[str, Any] = {"__name__": "__main__", "torch": torch, "nn": nn, **names}
    exec(compile(source, "<cell>", "exec"), space)
    return space[name]
