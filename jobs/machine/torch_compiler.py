"""Keep torch's compiler out of a process that compiles nothing: loading it takes a second."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

# The attribute in which torch keeps the variant of a function that its compiler does not trace.
_UNTRACED = "__dynamo_disable"
_REFERENCES = ("add", "sub", "mul", "true_divide")


def spare_compiler() -> None:
    """Let forward mode run without loading torch's compiler, until other code loads it.

    Forward mode multiplies by zero tensors that take no memory. To find the shapes of the results,
    torch calls its Python references of add, sub, mul and div. At its first call, each of these
    loads the compiler only to exclude itself from being compiled, which is unnecessary as long as
    the compiler is not loaded. If the references are not defined as in torch 2.11 to 2.13, nothing
    is changed and the compiler is loaded.
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
        if not hasattr(function, _UNTRACED):
            setattr(function, _UNTRACED, _unless_loaded(function))


def _unless_loaded(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        disabled = torch._dynamo.disable(function, True, wrapping=False)
        setattr(function, _UNTRACED, disabled)
        return disabled(*args, **kwargs)

    return call
