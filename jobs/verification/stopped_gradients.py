"""Find where a function stops gradients, to name the place to its author."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from jobs.functions.tracebacks import is_of_user

# Attributes and methods that return the numbers of a tensor without its history.
_STOPPING = ("detach", "detach_", "data", "numpy", "item", "tolist")
_MOST = 3
_CUSTOM = torch.autograd.function.__file__
_NOT_CALLERS = (str(Path(torch.__file__).parent), __file__)


def stopped_gradients(evaluate: Callable[[], Any]) -> str:
    """Evaluate a function and return which of its lines stop gradients; empty if none is seen.

    Args:
        evaluate: Evaluates the function at inputs that require a gradient.
    """
    watch = _Watch()
    # Watching may disturb a function; then its lines are not named.
    try:
        with watch:
            evaluate()
    except Exception:
        return ""
    return "; ".join(list(watch.found)[:_MOST])


class _Watch(TorchFunctionMode):
    """Notes calls that take a tensor with a history and return numbers without one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(each.requires_grad or each.is_inference() for each in _flat(args)):
            name = _name(func)
            outputs = [each for each in _flat(result) if each.is_floating_point()]
            has_history = any(each.requires_grad for each in outputs)
            if name in _STOPPING or (name == "grad" and not has_history):
                self._note(name)
            elif outputs and not torch.is_grad_enabled():
                self._note(f"{name} without gradients (torch.no_grad)")
        return result

    def _note(self, name: str) -> None:
        stack = traceback.extract_stack()
        others = [each for each in stack if not each.filename.startswith(_NOT_CALLERS)]
        if not others or not is_of_user(others[-1].filename):
            return
        # The forward method of a custom function runs without gradients, and has its own backward.
        if any(each.filename == _CUSTOM and each.name == "apply" for each in stack):
            name = "a custom backward"
        last = others[-1]
        self.found[f"{name} in {Path(last.filename).name}, line {last.lineno}: {last.line}"] = None


def _name(func: Any) -> str:
    # A property arrives as its getter.
    owner = getattr(func, "__self__", None)
    known = getattr(owner, "__name__", "") or resolve_name(func) or getattr(func, "__name__", "")
    return str(known).removesuffix(".__get__").rpartition(".")[2]


def _flat(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, tuple | list):
        return [tensor for each in values for tensor in _flat(each)]
    return []
