"""Keep torch's compiler out of a process that compiles nothing: it takes a second to load."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

# Where torch keeps the form of a function that the compiler leaves alone.
_KEPT = "__dynamo_disable"
_REFERENCES = ("add", "sub", "mul", "true_divide")


def spare_compiler() -> None:
    """Let forward mode go without the compiler until something else loads it.

    Forward mode multiplies by zeros that take no memory. What shape they give torch asks of its
    Python references of add, sub, mul and div, and at its first call each of these loads the
    compiler, only to be left alone by it. As long as nobody has loaded it, there is nothing to be
    left alone by. Where torch is built otherwise than 2.11 to 2.13 are, nothing is changed, and the
    compiler is loaded.
    """
    references, sparing = (sys.modules.get(f"torch.{name}") for name in ("_refs", "_compile"))
    for name in _REFERENCES:
        try:
            reference: Any = getattr(references, name)
            while reference.__code__.co_filename != getattr(sparing, "__file__", ""):
                reference = reference.__wrapped__
            function = inspect.getclosurevars(reference).nonlocals["fn"]
        except (AttributeError, KeyError, TypeError):
            continue
        if not hasattr(function, _KEPT):
            setattr(function, _KEPT, _unless_loaded(function))


def _unless_loaded(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        disabled = torch._dynamo.disable(function, True, wrapping=False)
        setattr(function, _KEPT, disabled)
        return disabled(*args, **kwargs)

    return call
