"""The recorded evaluation of a function: a list of steps, each one operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Meta:
    """What rules know of a result.

    Attributes:
        shape: Its shape.
        dtype: Its dtype.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Step:
    """One operator that was applied to at least one tensor that depends on the inputs.

    Attributes:
        target: The operator, an overload of torch.
        arguments: Its positional arguments: `Ref`, `Constant` and options.
        keywords: Its keyword arguments.
        metas: What is known of each result; None for one that is no tensor.
        has_one_result: Whether it returns a tensor; else it returns a sequence.
        place: The file and line that called it; empty if unknown.
        zeros: For each argument that has zeros, where they are, by its position.
    """

    target: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    metas: tuple[Meta | None, ...]
    has_one_result: bool
    place: str
    zeros: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Ref:
    """A result of a step, or an input.

    Attributes:
        step: The step; None for an input.
        index: Which of its results, or which input.
    """

    step: Step | None
    index: int = 0


@dataclass(eq=False)
class Constant:
    """A tensor that depends on no input, as it was when a step read it."""

    tensor: Tensor


@dataclass(frozen=True, eq=False)
class Recording:
    """What was recorded.

    Attributes:
        steps: The steps in order.
        outputs: `Ref` or, where an output depends on no input, `Constant`.
        frozen: What the recording holds of the point: one line for each place.
    """

    steps: list[Step]
    outputs: list[Ref | Constant]
    frozen: tuple[str, ...]
