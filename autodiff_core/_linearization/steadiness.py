"""Check that every evaluation of a function returns the same values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autodiff_core._engines.agreement import agreement_tolerance
from autodiff_core._errors import ChangingFunctionError
from autodiff_core._linearization.adjoint import is_inexact
from autodiff_core._linearization.nesting import is_wrapped


def require_same_values(values: Sequence[Tensor], first: Sequence[Tensor]) -> None:
    """Compare the values of an evaluation with those of the first one at the same point.

    Forward mode evaluates the function anew for its tangents. If the function changes meanwhile
    (it counts its calls, or draws numbers that are not torch's), columns belong to different
    functions. Values that a transformation around the caller holds are not compared.

    Args:
        values: The outputs.
        first: The outputs at the first evaluation.

    Raises:
        ChangingFunctionError: They differ by more than rounding.
    """
    if len(values) != len(first):
        raise ChangingFunctionError(
            f"func returns a different value on each call: {len(first)} tensors at first and "
            f"{len(values)} later, at the same point"
        )
    for index, (value, expected) in enumerate(zip(values, first, strict=True)):
        if is_wrapped(value) or is_wrapped(expected):
            continue
        if value.shape != expected.shape or not _are_same(value.detach(), expected.detach()):
            raise ChangingFunctionError(
                f"func returns a different value on each call at the same point: output {index} "
                "has changed, although torch's random numbers are the same; forward mode "
                "evaluates it more than once. Reasons can be a counter, a cache, a state that each "
                "call changes, or numbers drawn by numpy, by the module random or by a generator "
                "of the function's own"
            )


def _are_same(value: Tensor, expected: Tensor) -> bool:
    if torch.equal(value, expected):
        return True
    if not is_inexact(value):
        return False
    # Under torch.func a 0-dim tensor of float32 times a number of Python is of float64.
    value = value.to(expected.dtype)
    tolerance = agreement_tolerance(expected.dtype)
    size = float(torch.nan_to_num(expected.abs(), nan=0.0, posinf=0.0).max())
    return torch.allclose(value, expected, rtol=0.0, atol=tolerance * size, equal_nan=True)
