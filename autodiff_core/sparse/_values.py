"""The value of a function at a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


def value_of(func: Callable[..., Any], inputs: Any) -> Any:
    """Return what a function, which may take derivatives inside, returns; without its graph.

    Args:
        func: Called with the tensors of a tuple of inputs as its arguments.
        inputs: A tensor, a tuple of arguments, or another nested structure of tensors.
    """
    with torch.enable_grad():
        point = tree_map_only(Tensor, _copy, inputs)
        value = func(*point) if isinstance(point, tuple) else func(point)
    return tree_map_only(Tensor, Tensor.detach, value)


def _copy(tensor: Tensor) -> Tensor:
    # A copy, which a function may change in place.
    return tensor.detach().requires_grad_(tensor.is_floating_point()).clone()
