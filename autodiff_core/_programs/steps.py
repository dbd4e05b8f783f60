"""The steps of a linear program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from autodiff_core._programs import stack_operators, stack_sums
from autodiff_core._programs.stacks import Stack
from autodiff_core._tensors.linear_combination import Coefficient, numeric

NOT_LINEAR = "not linear"
"""The kind of a step that gives no linear image, which a program must not need."""


@dataclass(frozen=True)
class Step:
    """One step of a linear program.

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


def combination(
    inputs: Sequence[int],
    coefficients: Sequence[Coefficient],
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Step:
    """Return a step that sums results, each multiplied by a constant.

    Selections that no simplification merges with another coefficient are applied as factors.
    """
    factors = tuple(numeric(each, dtype) for each in coefficients)

    def apply(*stacks: Stack | None, spare: Sequence[bool] = ()) -> Stack:
        return stack_sums.combine(stacks, factors, shape, dtype, spare)

    return Step("combine", tuple(inputs), shape, dtype, apply, tuple(coefficients))


def permutation(
    source: int, dims: tuple[int, ...], shape: Sequence[int], dtype: torch.dtype
) -> Step:
    """Return a step that reorders the dimensions of a result."""
    apply = partial(stack_operators.permute, dims=dims)
    return Step("permute", (source,), tuple(shape), dtype, apply, dims=dims)
