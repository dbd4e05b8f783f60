"""A derivative at each of many points, as the rows of all points under one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import autodiff_core
from autodiff_core import Axis, AxisLayout, Block, BlockStream, Fallback
from jobs.functions.at_points import with_constants
from jobs.functions.ragged import naming
from jobs.machine.accelerator import same_random_numbers, seed_generators
from jobs.streams.kept import Keeping
from jobs.streams.stream import PlainStream

# The number of elements that the function's values and the products for the check may take at once,
# about.
_ELEMENTS_AT_ONCE = 2**22


class PointStream(Keeping, PlainStream):
    """The derivatives at many points as blocks of rows, those of one point after another's.

    A block of several points is computed for all of them at once. A block within one point is
    computed from that point's own linearization, which is kept for the next block. Forward mode
    computes a point's matrix whole. The engine is the plain one, because a linearization that
    computes few blocks is not worth capturing. The attributes are those of a `Stream`; the shape
    is (points * rows of a point, columns).
    """

    axis = Axis.ROWS

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Tensor],
        *,
        seed: int,
        operation: str,
        strategy: str,
        value: Any = None,
        is_transposed: bool = False,
    ) -> None:
        """Linearise at the first point to learn the layout, and evaluate at all points.

        Args:
            function: The function of one point, or a `PointsFunction`.
            inputs: Its arguments, each with a leading dimension over points.
            seed: The seed of torch's generators.
            operation: ``jacobian`` or ``hessian``.
            strategy: A strategy of `autodiff_core`.
            value: The function's values at all points, if they are known.
            is_transposed: Whether the matrices are the transposed derivatives.
        """
        super().__init__()
        self._is_transposed = is_transposed
        self._call, self._constants = with_constants(function)
        self._inputs = tuple(inputs)
        self._seed = seed
        self._options: dict[str, Any] = {
            "operation": operation,
            "strategy": strategy,
            "engine": self.engine,
            "check_modes": False,
        }
        self._open = (0, self._at(0))
        first = self._open[1]
        layouts: tuple[AxisLayout, AxisLayout] = (first.rows, first.columns)
        self.rows, self.columns = layouts[::-1] if is_transposed else layouts
        self.dtype = first.dtype
        self.is_divisible = (first.axis is Axis.ROWS) is not is_transposed
        self.unit, across = self.rows.size, self.columns.size
        self.passes = self.unit if self.is_divisible else across
        count = len(self._inputs[0])
        self.shape = (count * self.unit, across)
        self.value: Any = value
        if value is None:
            self.value = values_of_points(function, self._inputs, seed)

    def block(self, start: int, stop: int) -> Block:
        """Compute one block.

        Args:
            start: The first row, counted over all points.
            stop: One past the last.
        """
        if (kept := self.taken(start, stop)) is not None:
            return kept
        first, last = start // self.unit, -(-stop // self.unit)
        fallbacks: dict[str, Fallback] = {}
        if last - first == 1:
            values = self._within(first, start - first * self.unit, stop - first * self.unit)
        else:
            seed_generators(self._seed)
            part = slice(first, last)
            stream = blocks_at_points(
                self._call, self._inputs, self._constants, part, **self._options
            )
            values, fallbacks = matrices(stream)
            values = self._turned(values).reshape(-1, self.shape[1])
            values = values[start - first * self.unit : stop - first * self.unit]
        return Block(Axis.ROWS, start, stop, (values,), self.dtype, tuple(fallbacks.values()))

    def rows_by_symmetry(self) -> None:
        """Return None: the blocks are of rows already."""

    def _within(self, point: int, start: int, stop: int) -> Tensor:
        if self._open[0] != point:
            self._open = (point, self._at(point))
        stream = self._open[1]
        if self.is_divisible:
            return self._turned(stream.block(start, stop).values)
        return self._turned(stream.matrix())[start:stop]

    def _turned(self, values: Tensor) -> Tensor:
        return values.transpose(-1, -2) if self._is_transposed else values

    def _at(self, point: int) -> BlockStream:
        seed_generators(self._seed)
        inputs = tuple(tensor[point] for tensor in self._inputs)
        constants = [tensor[point] for tensor in self._constants]
        function = naming(lambda *given: self._call(*given, *constants), f"at point {point}")
        return autodiff_core.blocks(function, inputs, **self._options)


def blocks_at_points(
    call: Callable[..., Any],
    inputs: Sequence[Tensor],
    constants: Sequence[Tensor],
    part: slice,
    **options: Any,
) -> BlockStream:
    """Return the blocks of the derivative at each of some points.

    Args:
        call: A function of one point and its constants.
        inputs: The tensors of all points.
        constants: The constants of all points.
        part: Which points.
        **options: Further options of `autodiff_core.blocks`.
    """
    given = tuple(tensor[part] for tensor in (*inputs, *constants))
    differentiated = tuple(range(len(inputs)))
    return autodiff_core.blocks(call, given, argnums=differentiated, points=True, **options)


def matrices(stream: BlockStream) -> tuple[Tensor, dict[str, Fallback]]:
    """Return the matrices at all points, and the fallbacks that were taken, by their texts.

    Args:
        stream: The blocks at many points.
    """
    assert stream.points is not None
    device, fallbacks = stream.linearized.primals[0].device, {}
    values = torch.empty((stream.points, *stream.shape), dtype=stream.dtype, device=device)
    for block in stream:
        values[:, *block.axis.region(block.start, block.stop)] = block.values
        fallbacks.update({str(each): each for each in block.fallbacks})
    return values, fallbacks


def values_of_points(function: Callable[..., Any], inputs: Sequence[Tensor], seed: int) -> Any:
    """Return the function's values at all points, nested as it returns them, stacked."""
    parts = [mapped(Tensor.detach, each) for each in values_at_points(function, inputs, seed)]
    return mapped(lambda *tensors: torch.cat(tensors), *parts)


def stacked(function: Callable[..., Any], first: int = 0) -> Callable[..., Any]:
    """Return a function of many points: batched where that is possible, else point by point.

    Each point draws the random numbers that it would draw by itself, and no state is advanced.

    Args:
        function: The function of one point.
        first: The number of the first point, to name the one at which the function fails.
    """

    def at_all(*inputs: Tensor) -> Any:
        # Copies: a function may work in place on its arguments.
        try:
            with same_random_numbers():
                copies = (tensor.clone() for tensor in inputs)
                return torch.func.vmap(function, randomness="same")(*copies)
        # A function that cannot be batched may raise an exception of any type; one that is itself
        # at fault raises it again below.
        except Exception:
            values = []
            for number, point in enumerate(zip(*inputs, strict=True), first):
                with same_random_numbers():
                    copies = (tensor.clone() for tensor in point)
                    values.append(naming(function, f"at point {number}")(*copies))
            return mapped(lambda *tensors: torch.stack(tensors), *values)

    return at_all


def values_at_points(
    function: Callable[..., Any], inputs: Sequence[Tensor], seed: int
) -> Iterator[Any]:
    """Yield the values at ranges of points, stacked, as a derivative evaluates them."""
    call, constants = with_constants(function)
    count = len(inputs)
    for first, part in parts_of_points((*inputs, *constants)):
        seed_generators(seed)
        copies = (tensor.detach().clone().requires_grad_() for tensor in part[:count])
        yield stacked(call, first)(*copies, *part[count:])


def parts_of_points(inputs: Sequence[Tensor]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Yield ranges of points that are not too many at once: the first number, and the inputs."""
    elements = max(1, sum(tensor[0].numel() for tensor in inputs))
    step = max(1, _ELEMENTS_AT_ONCE // (64 * elements))
    for start in range(0, len(inputs[0]), step):
        yield start, tuple(tensor[start : start + step] for tensor in inputs)


def mapped(apply: Callable[..., Any], *values: Any) -> Any:
    """Return equally nested values with a function applied to their corresponding tensors."""
    first = values[0]
    if isinstance(first, dict):
        return {key: mapped(apply, *(value[key] for value in values)) for key in first}
    if isinstance(first, tuple | list):
        return tuple(mapped(apply, *parts) for parts in zip(*values, strict=True))
    return apply(*values)
