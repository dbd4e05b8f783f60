"""The steps of a linear program."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators, stack_sums
from autodiff_core._programs.flat import FEW_ELEMENTS
from autodiff_core._programs.stacks import Stack
from autodiff_core._tensors.linear_combination import Coefficient, is_selection, numeric

NOT_LINEAR = "not linear"
"""The kind of a step that gives no linear image, which a program must not need."""


@dataclass(slots=True)
class Step:
    """One step of a linear program.

    It is not modified. To have Python forbid that would make it take five times as long to make one
    of the thousands that there are.

    Attributes:
        kind: The name of the kind of operation, by which steps are simplified.
        inputs: The numbers of the steps whose results are the inputs.
        shape: The shape of one vector of the result.
        dtype: The dtype of the result.
        apply: Computes the result from the results of `inputs`.
        coefficients: For a ``combine``: the factor of each input. For a ``matmul`` with one term,
            which is a product element by element: the constant that its input is multiplied by.
        dims: For a ``permute``: which dimension of its input each dimension is; for a ``join``: the
            permutation that is applied to each joined part; for a ``pad``: the dimension, where its
            input begins, and the length of that.
        selects: For a step that selects elements: returns the same elements of a constant of the
            input's shape.
        takes_memory: Whether `apply` has an argument ``out``: memory of shape (count, *shape) that
            may receive the result.
    """

    kind: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    apply: Callable[..., Stack | tuple[Tensor, ...]]
    coefficients: tuple[Coefficient, ...] = ()
    dims: tuple[int, ...] = ()
    selects: Callable[[Tensor], Tensor] | None = None
    takes_memory: bool = False

    @property
    def is_one_term_as_it_is(self) -> bool:
        """Whether it is a sum of one term without a factor."""
        # torch takes long to compare a tensor with None.
        return self.kind == "combine" and len(self.inputs) == 1 and self.coefficients[0] is None


def combination(
    inputs: Sequence[int],
    coefficients: Sequence[Coefficient],
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Step:
    """Return a step that sums results, each multiplied by a constant.

    Selections that no simplification merges with another coefficient are applied as factors.
    """
    given = tuple(coefficients)
    factors = given
    if any(map(is_selection, given)):
        factors = tuple([numeric(each, dtype) for each in given])

    def apply(*stacks: Stack | None, spare: Sequence[bool] = ()) -> Stack:
        return stack_sums.combine(stacks, factors, shape, dtype, spare)

    return Step("combine", tuple(inputs), shape, dtype, apply, given)


def permutation(
    source: int, dims: tuple[int, ...], shape: Sequence[int], dtype: torch.dtype
) -> Step:
    """Return a step that reorders the dimensions of a result."""
    apply = partial(stack_operators.permute, dims=dims)
    return Step("permute", (source,), tuple(shape), dtype, apply, dims=dims)


def in_full(step: Step, given: list[Any], count: int) -> list[Any]:
    """Return the inputs of a step with zeros written out where knowing them saves nothing.

    An operator under vmap makes no use of them, and a sum with dense stacks has none.
    """
    kinds = set(map(type, given))
    if Stack not in kinds:
        return given
    if step.kind == "combine":
        is_small = count * math.prod(step.shape) < FEW_ELEMENTS
        if Tensor not in kinds or not is_small:
            return given
    return [each.dense() if isinstance(each, Stack) else each for each in given]


def timed(
    seconds: dict[int, float],
    number: int,
    function: Callable[..., Any],
    *given: Any,
    **options: Any,
) -> Any:
    """Apply a step and note how long it takes."""
    started = time.perf_counter()
    found = function(*given, **options)
    seconds[number] = time.perf_counter() - started
    return found
