"""Evaluate a function as a derivative does: on copies that require a gradient, with its seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from jobs.functions.batch_sum import BatchSum
from jobs.machine.accelerator import seed_generators


def evaluated(function: Callable[..., Any], point: Sequence[Tensor], seed: int) -> Any:
    """Return what a function returns at a point; of a sum, with one batch in memory at a time.

    Args:
        function: The function. Some ask whether a gradient is wanted, or differentiate inside.
        point: Its arguments.
        seed: The seed of torch's generators; a sum tells that of each of its terms.
    """
    if not isinstance(function, BatchSum):
        return evaluated_on_copies(function, point, seed)[0]
    values = (
        evaluated(term, point, function.seed_of(seed, number)).detach()
        for number, term in enumerate(function.terms())
    )
    return reduce(torch.add, values)


def evaluated_on_copies(
    function: Callable[..., Any], point: Sequence[Tensor], seed: int
) -> tuple[Any, list[Tensor]]:
    """Return what a function returns at a point, and the copies that its graph leads to."""

    def attempt(pass_on: Callable[[Tensor], Tensor]) -> tuple[Any, list[Tensor]]:
        copies = [tensor.detach().clone().requires_grad_() for tensor in point]
        seed_generators(seed)
        return function(*map(pass_on, copies)), copies

    try:
        # A function may read the `grad` of a leaf.
        return attempt(lambda leaf: leaf)
    except RuntimeError as error:
        if "leaf Variable that requires grad" not in str(error):
            raise
    # It works in place on its arguments.
    return attempt(torch.clone)
