"""A derivative at each of many points, as the rows of all points under one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import autodiff_core
from autodiff_core import Axis, AxisLayout, Block, BlockStream
from jobs.functions.ragged import naming
from jobs.machine.accelerator import seed_generators
from jobs.streams.summed import value_and_product

# The number of elements that the function's values and the products for the check may take at once,
# about.
_ELEMENTS_AT_ONCE = 2**22


class PointStream:
    """The derivatives at many points as blocks of rows, those of one point after another's.

    A block of several points is computed for all of them at once. A block within one point is
    computed from that point's own linearization, which is kept for the next block. Forward mode
    computes a point's matrix whole. The engine is the plain one, because a linearization that
    computes few blocks is not worth capturing. The attributes are those of a `Stream`; the shape
    is (points * rows of a point, columns).
    """

    axis = Axis.ROWS
    engine = "plain"
    engine_refusal = None
    recorder = None
    nodes = 0

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Tensor],
        *,
        seed: int,
        operation: str,
        strategy: str,
    ) -> None:
        """Linearise at the first point to learn the layout, and evaluate at all points.

        Args:
            function: The function of one point.
            inputs: Its arguments, each with a leading dimension over points.
            seed: The seed of torch's generators.
            operation: ``jacobian`` or ``hessian``.
            strategy: A strategy of `autodiff_core`.
        """
        self._function = function
        self._inputs = tuple(inputs)
        self._seed = seed
        self._options: dict[str, Any] = {
            "operation": operation,
            "strategy": strategy,
            "engine": self.engine,
            "check_modes": False,
        }
        self._kept = (0, self._at(0))
        first = self._kept[1]
        self.rows: AxisLayout = first.rows
        self.columns: AxisLayout = first.columns
        self.dtype = first.dtype
        self.is_divisible = first.axis is Axis.ROWS
        self.unit, across = first.shape
        self.passes = self.unit if self.is_divisible else across
        count = len(self._inputs[0])
        self.shape = (count * self.unit, across)
        self.value: Any = values_of_points(function, self._inputs, seed)

    def block(self, start: int, stop: int) -> Block:
        """Compute one block.

        Args:
            start: The first row, counted over all points.
            stop: One past the last.
        """
        first, last = start // self.unit, -(-stop // self.unit)
        fallbacks: dict[str, Any] = {}
        if last - first == 1:
            values = self._within(first, start - first * self.unit, stop - first * self.unit)
        else:
            seed_generators(self._seed)
            inputs = tuple(tensor[first:last] for tensor in self._inputs)
            stream = autodiff_core.blocks(self._function, inputs, points=True, **self._options)
            shape, device = (last - first, *stream.shape), inputs[0].device
            values = torch.empty(shape, dtype=self.dtype, device=device)
            for block in stream:
                values[:, *block.axis.region(block.start, block.stop)] = block.values
                fallbacks.update({str(each): each for each in block.fallbacks})
            values = values.reshape(-1, self.shape[1])
            values = values[start - first * self.unit : stop - first * self.unit]
        return Block(Axis.ROWS, start, stop, (values,), self.dtype, tuple(fallbacks.values()))

    def rows_by_symmetry(self) -> None:
        """Return None: the blocks are of rows already."""

    def _within(self, point: int, start: int, stop: int) -> Tensor:
        if self._kept[0] != point:
            self._kept = (point, self._at(point))
        stream = self._kept[1]
        if self.is_divisible:
            return stream.block(start, stop).values
        return stream.matrix()[start:stop]

    def _at(self, point: int) -> BlockStream:
        seed_generators(self._seed)
        inputs = tuple(tensor[point] for tensor in self._inputs)
        function = naming(self._function, f"at point {point}")
        return autodiff_core.blocks(function, inputs, **self._options)


def values_of_points(function: Callable[..., Any], inputs: Sequence[Tensor], seed: int) -> Any:
    """Return the function's values at all points, nested as it returns them, stacked."""
    parts = []
    with torch.no_grad():
        for first, part in _parts(inputs):
            seed_generators(seed)
            parts.append(stacked(function, first)(*part))
    return _map(lambda *tensors: torch.cat(tensors), *parts)


def stacked(function: Callable[..., Any], first: int = 0) -> Callable[..., Any]:
    """Return a function of many points: batched where that is possible, else point by point.

    Args:
        function: The function of one point.
        first: The number of the first point, to name the one at which the function fails.
    """

    def at_all(*inputs: Tensor) -> Any:
        try:
            return torch.func.vmap(function, randomness="different")(*inputs)
        # A function that cannot be batched may raise an exception of any type; one that is itself
        # at fault raises it again below.
        except Exception:
            values = [
                naming(function, f"at point {number}")(*point)
                for number, point in enumerate(zip(*inputs, strict=True), first)
            ]
            return _map(lambda *tensors: torch.stack(tensors), *values)

    return at_all


def values_at_points(
    function: Callable[..., Any], inputs: Sequence[Tensor], seed: int
) -> Iterator[Any]:
    """Yield the values at ranges of points, stacked, as a derivative evaluates them."""
    for first, part in _parts(inputs):
        seed_generators(seed)
        yield stacked(function, first)(
            *(tensor.detach().clone().requires_grad_() for tensor in part)
        )


def value_and_product_at_points(
    operation: str,
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    vector: Sequence[Tensor],
    *,
    seed: int,
    strategy: str,
) -> tuple[Any, list[Tensor], list[Tensor]]:
    """Return values at all points, of second order gradients, and a product for each point.

    Args:
        operation: ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        function: The function of one point.
        inputs: Its arguments, each with a leading dimension over points.
        vector: The vectors, each tensor with a leading dimension over points.
        seed: The seed of torch's generators.
        strategy: A strategy of `autodiff_core`.

    Returns:
        The values, stacked, of second order their sum; the gradients; and the products, one tensor
        with a leading dimension over points for each tensor of the image.
    """
    is_second_order = operation in ("vhp", "hvp")
    values, gradients, products = [], [], []
    for start, part in _parts(inputs):
        stop = start + len(part[0])
        at_all = stacked(function, start)

        def total(*point: Tensor, at_all: Callable[..., Any] = at_all) -> Any:
            # The points are independent of one another, so that the Hessian of the sum is block
            # diagonal, with the Hessians of the points as blocks.
            return at_all(*point).sum()

        value, gradient, image = value_and_product(
            operation,
            total if is_second_order else at_all,
            part,
            tuple(tensor[start:stop] for tensor in vector),
            seed=seed,
            strategy=strategy,
        )
        values.append(value)
        gradients.append(gradient)
        products.append(image)
    join = sum if is_second_order else torch.cat
    value = _map(lambda *tensors: join(tensors), *values)
    gradient, image = (
        [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
        for parts in (gradients, products)
    )
    return value, gradient, image


def _parts(inputs: Sequence[Tensor]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Yield ranges of points that are not too many at once: the first number, and the inputs."""
    elements = max(1, sum(tensor[0].numel() for tensor in inputs))
    step = max(1, _ELEMENTS_AT_ONCE // (64 * elements))
    for start in range(0, len(inputs[0]), step):
        yield start, tuple(tensor[start : start + step] for tensor in inputs)


def _map(apply: Callable[..., Any], *values: Any) -> Any:
    """Return equally nested values with a function applied to their corresponding tensors."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _map(apply, *(value[key] for value in values)) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_map(apply, *parts) for parts in zip(*values, strict=True))
    return apply(*values)
