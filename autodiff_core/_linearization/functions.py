"""The functions that strategies linearize: the user's function, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from autodiff_core._engines.agreement import ReportFallback
from autodiff_core._errors import Fallback, first_line, is_out_of_memory, text_of
from autodiff_core._linearization.arguments import FlatFunction
from autodiff_core._linearization.second_order import custom_functions
from autodiff_core._tensors.backward_pass import backward_pass
from autodiff_core._tensors.randomness import ReplayedRandomness


class Function(Protocol):
    """A function from tensors to a tuple of tensors."""

    def __call__(self, *primals: Tensor) -> tuple[Tensor, ...]:
        """Evaluate with torch's ordinary autograd for derivatives inside the function."""
        ...

    def under_transform(self, *primals: Tensor) -> tuple[Tensor, ...]:
        """Evaluate inside a transformation of `torch.func`."""
        ...


class Direct:
    """The user's function, evaluated as it is, on arguments that it may modify in place.

    A tensor with a history is passed as a copy: after a modification in place, derivatives with
    respect to it would be those with respect to the modified tensor. A leaf is passed as it is,
    because a function may read its `grad`; autograd raises an error when a function works in place
    on it, before anything has changed, and from that evaluation on the function receives copies.
    """

    def __init__(self, flat: FlatFunction) -> None:
        """Store a function from tensors to a tuple of tensors."""
        self._flat = flat
        self._works_in_place = False

    def __call__(
        self, *primals: Tensor, constants: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Evaluate the function, with other constants where these are given."""
        if constants is not None:
            constants = [each.clone() for each in constants]
        if not self._works_in_place:
            try:
                given = (p if p.is_leaf else p.clone() for p in primals)
                return self._flat(*given, constants=constants)
            except RuntimeError as error:
                if "leaf Variable that requires grad is being used in an in-place" not in text_of(
                    error
                ):
                    raise
            self._works_in_place = True
        return self._flat(*(primal.clone() for primal in primals), constants=constants)

    under_transform = __call__


class Pointwise:
    """A function applied to each of many points along the leading dimension of its inputs.

    The points are batched with `torch.func.vmap` if the function allows it and the batched values
    agree with plain ones; otherwise they are evaluated in a loop. Each point draws the random
    numbers that it would draw by itself.
    """

    def __init__(
        self,
        direct: Direct,
        constants: Sequence[Tensor],
        *,
        strategy: str,
        report: ReportFallback,
    ) -> None:
        """Store the function of one point, and its constants at all points."""
        self._direct = direct
        self._constants = tuple(constants)
        self._strategy = strategy
        self._report = report
        self._is_batched: bool | None = None

    def __call__(self, *primals: Tensor) -> tuple[Tensor, ...]:
        """Evaluate at all points; outputs have shape (points, *shape)."""
        if self._is_batched is None:
            return self._first(*primals)
        return self._batched(*primals) if self._is_batched else self._looped(*primals)

    under_transform = __call__

    def _first(self, *primals: Tensor) -> tuple[Tensor, ...]:
        with ReplayedRandomness(primals).replayed():
            given = (*(primal.clone() for primal in primals), *self._constants)
            plain = self._at_one(*(each[0] for each in given))
        try:
            # Copies: a function that works in place must not modify the arguments of the loop.
            values = self._batched(*(primal.clone() for primal in primals))
            for value, expected in zip(values, plain, strict=True):
                torch.testing.assert_close(value[0], expected, equal_nan=True)
        # As in Batched: vmap can fail with an exception of any type.
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._is_batched = False
            values = self._looped(*primals)
            self._report(Fallback(self._strategy, "one point at a time", first_line(error)))
        else:
            self._is_batched = True
        return values

    def _at_one(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        split = len(tensors) - len(self._constants)
        return self._direct(*tensors[:split], constants=tensors[split:])

    def _batched(self, *primals: Tensor) -> tuple[Tensor, ...]:
        given = (*primals, *self._constants)
        with ReplayedRandomness(primals).replayed():
            return torch.func.vmap(self._at_one, randomness="same")(*given)

    def _looped(self, *primals: Tensor) -> tuple[Tensor, ...]:
        randomness, values = ReplayedRandomness(primals), []
        for point in zip(*primals, *self._constants, strict=True):
            with randomness.replayed():
                values.append(self._at_one(*point))
        return tuple(torch.stack(parts) for parts in zip(*values, strict=True))


class Gradient:
    """The gradient of a scalar function, itself a function of the same inputs.

    Attributes:
        value: The scalar function's value at the first evaluation; None before it.
        custom_functions: The names of the custom `torch.autograd.Function`s that it used.
    """

    def __init__(self, function: Function, operation: str, *, points: int | None) -> None:
        """Store the function without evaluating it.

        Args:
            function: The scalar function.
            operation: The function that the user called, for error messages.
            points: The number of points, for each of which the function returns one scalar; None
                for a function that returns a single scalar.
        """
        self._function = function
        self._operation = operation
        self._points = points
        self.value: Tensor | None = None
        self.custom_functions: tuple[str, ...] = ()

    def __call__(self, *primals: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient by reverse mode on the ordinary autograd graph.

        A graph of the gradient is always made, even if only tangents are needed: without it the
        backward of some operators (that of the determinant, for example) takes a shortcut that
        loses tangents without an error. Primals that do not require a gradient yet are changed to
        do so, which is safe because strategies pass their own copies.

        Raises:
            RuntimeError: The function does not return one tensor with one element.
        """
        with torch.enable_grad():
            inputs = tuple(p if p.requires_grad else p.requires_grad_() for p in primals)
            value = self._scalar(self._function(*inputs))
            if self.value is None:
                self.value = value
                self.custom_functions = custom_functions(value)
            if not value.requires_grad:
                return tuple(torch.zeros_like(primal) for primal in inputs)
            return backward_pass([value], inputs, [torch.ones_like(value)], create_graph=True)

    def under_transform(self, *primals: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient by `torch.func.vjp`, the only method inside other transformations.

        A graph of it is made, as in `__call__`.
        """

        def scalar(*inputs: Tensor) -> Tensor:
            return self._scalar(self._function.under_transform(*inputs))

        with torch.enable_grad():
            value, pullback = torch.func.vjp(scalar, *primals)[:2]
            return pullback(torch.ones_like(value))

    def _scalar(self, outputs: tuple[Tensor, ...]) -> Tensor:
        if len(outputs) != 1:
            raise RuntimeError(
                f"{self._operation}: func returned {len(outputs)} tensors; valid is one tensor "
                "with one element"
            )
        value = outputs[0]
        if value.numel() != (self._points or 1):
            shape = tuple(value.shape if self._points is None else value.shape[1:])
            raise RuntimeError(
                f"{self._operation}: func returned a tensor of shape {shape}; valid is one "
                "tensor with one element"
            )
        return value
