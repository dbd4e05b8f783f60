"""A function at many points of different sizes, as a function of all their numbers at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from autodiff_core import KnownPullback
from jobs.configuration.schema import LossConfig, WrtConfig
from jobs.errors import ConfigurationError
from jobs.functions.batch_sum import BatchSum
from jobs.functions.conversions import Conversion, alike
from jobs.functions.curvature import Curvature
from jobs.functions.evaluation import evaluated
from jobs.functions.loading import LoadedFunction
from jobs.functions.part import Lines
from jobs.functions.returned_values import leaves_of, named_outputs, nested
from jobs.functions.variables import Variables, choose_variables
from jobs.sources.source_array import SourceArray

# The name of the one-dimensional tensor that holds all points one after another.
ALL_POINTS = "points"


@dataclass(frozen=True)
class AtPoint:
    """A function at one of many points.

    Attributes:
        call: The function of the tensors of the point.
        names: The names of these tensors.
        shapes: Their shapes.
        start: Where their numbers begin in the tensor of all points.
    """

    call: Callable[..., Any]
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    start: int

    @property
    def width(self) -> int:
        """How many numbers the point has."""
        return sum(shape.numel() for shape in self.shapes)

    def tensors(self, numbers: Tensor) -> list[Tensor]:
        """Return the tensors of the point: copies, because a function may work in place."""
        found, start = [], self.start
        for shape in self.shapes:
            found.append(numbers[start : start + shape.numel()].reshape(shape).clone())
            start += shape.numel()
        return found


class RaggedFunction(BatchSum):
    """The function at all points: a sum with a term for each point.

    For a Hessian a term is the function's value. For a Jacobian it is a vector of the outputs of
    all points one after another, in which only those of the point are not zero. So the derivative
    is block diagonal, with the matrices of the points as blocks.

    Attributes:
        points: The function at each point.
        is_second_order: Whether the operation is a Hessian, or a curvature matrix.
        lines: Which lines of a second derivative are computed at each point; None for all.
        seconds: How long an evaluation at each point took; empty before `outputs` are known.
    """

    def __init__(
        self,
        function: LoadedFunction,
        points: Sequence[AtPoint],
        numbers: Tensor,
        *,
        is_second_order: bool,
        seed: int,
        lines: Sequence[Lines] | None = None,
    ) -> None:
        """Keep the points; nothing is evaluated yet.

        Args:
            function: The function, for the names of its outputs.
            points: The function at each point.
            numbers: The numbers of all points.
            is_second_order: Whether the operation is a Hessian.
            seed: The seed of torch's generators; that of a point is greater by its number.
            lines: Which lines of a second derivative are computed at each point; None for all.
        """
        super().__init__(lambda: iter(()))
        self.points, self.is_second_order = tuple(points), is_second_order
        self.lines = lines
        self._function, self._numbers, self._seed = function, numbers, seed
        self.seconds: list[float] = []

    @cached_property
    def outputs(self) -> list[dict[str, Tensor]]:
        """What the function returns at each point, by name.

        Raises:
            ConfigurationError: The outputs of two points have different names.
        """
        found = []
        for number, point in enumerate(self.points):
            # The first evaluation of all takes longer than the others.
            for _ in range(2 if number == 0 else 1):
                started = time.perf_counter()
                tensors = point.tensors(self._numbers)
                value = evaluated(point.call, tensors, self._seed + number)
                seconds = time.perf_counter() - started
            self.seconds.append(seconds)
            named = named_outputs(self._function, value)
            found.append({name: each.detach() for name, each in named.items()})
            if list(found[-1]) != list(found[0]):
                raise ConfigurationError(
                    f"{self._function.name} returns {', '.join(found[0])} at the first point and "
                    f"{', '.join(found[-1])} at point {number}; valid are the same outputs"
                )
        return found

    @property
    def value(self) -> Tensor:
        """The function's value: the sum over all points, or their outputs one after another."""
        outputs = [leaf for named in self.outputs for leaf in named.values()]
        if self.is_second_order:
            return reduce(torch.add, outputs)
        return torch.cat([each.reshape(-1) for each in outputs])

    def known_at(self, number: int, known: KnownPullback) -> KnownPullback:
        """Return a product at all points as that of one term: zero but at its point.

        Args:
            number: The number of the point.
            known: The product at all points.
        """
        point = self.points[number]
        columns = slice(point.start, point.start + point.width)
        rows = columns if self.is_second_order else self._rows(number)
        (outputs,), (image,) = known.outputs, known.image
        return replace(known, outputs=(_within(outputs, rows),), image=(_within(image, columns),))

    @property
    def widths(self) -> list[int]:
        """How many columns the matrix of each point has."""
        if self.lines is not None:
            return [len(each.columns.numbers) for each in self.lines]
        return [point.width for point in self.points]

    @cached_property
    def heights(self) -> list[int]:
        """How many rows the matrix of each point has."""
        if self.lines is not None:
            return [len(each.rows.numbers) for each in self.lines]
        if self.is_second_order:
            return [point.width for point in self.points]
        return [sum(each.numel() for each in outputs.values()) for outputs in self.outputs]

    @cached_property
    def _starts(self) -> list[int]:
        """Where the rows of each point begin, and where the last ones end."""
        return [0, *accumulate(self.heights)]

    def _rows(self, number: int) -> slice:
        return slice(self._starts[number], self._starts[number + 1])

    def terms(self) -> Iterator[Callable[..., Any]]:
        """Yield the function at each point, as a function of the numbers of all points."""
        for number, point in enumerate(self.points):
            rows = slice(0, 0) if self.is_second_order else self._rows(number)
            total = 0 if self.is_second_order else self._starts[-1]
            yield self._term(point, rows.start, total - rows.stop)

    def _term(self, point: AtPoint, before: int, after: int) -> Callable[..., Any]:
        if isinstance(point.call, Curvature):
            return point.call.of_some(point.tensors, (self._numbers,))

        def term(numbers: Tensor) -> Any:
            value = point.call(*point.tensors(numbers))
            if self.is_second_order:
                return value
            rows = torch.cat([leaf.reshape(-1) for leaf in leaves_of(value)])
            return torch.nn.functional.pad(rows, (before, after))

        return term


def _within(tensor: Tensor, part: slice) -> Tensor:
    """Return a tensor with zeros outside of a part."""
    found = torch.zeros_like(tensor)
    found[part] = tensor[part]
    return found


def ragged_variables(
    function: LoadedFunction,
    points: Sequence[Mapping[str, SourceArray]],
    wrt: WrtConfig,
    loss: LossConfig,
    dtype: torch.dtype,
    device: torch.device,
    *,
    is_second_order: bool,
    seed: int,
    curvature: str | None = None,
) -> Variables:
    """Make a function of the numbers of all points, whose constants may differ by point.

    Args:
        function: The function.
        points: The arguments at each point, by name.
        wrt: The option `wrt`.
        loss: The option `loss`.
        dtype: The dtype of the points.
        device: Their device.
        is_second_order: Whether the operation is a Hessian.
        seed: The seed of torch's generators.
        curvature: ``ggn`` or ``fisher`` for the curvature matrix of the loss.

    Raises:
        JobError: As `choose_variables`.
    """
    at_points: list[AtPoint] = []
    numbers: list[Tensor] = []
    constants: dict[str, SourceArray] = {}
    conversions: list[Conversion] = []
    first: Variables | None = None
    start = 0
    for number, arguments in enumerate(points):
        place = f"at point {number} ({next(iter(arguments.values())).origin})"
        with named_place(place):
            here = choose_variables(
                function, arguments, wrt, loss, dtype, device, curvature=curvature
            )
        first = first or here
        names, shapes = tuple(here.point), tuple(each.shape for each in here.point.values())
        if names != tuple(first.point):
            raise ConfigurationError(
                f"points: {', '.join(names)} is differentiated at point {number}, and "
                f"{', '.join(first.point)} at the first; integers are constants"
            )
        at_points.append(AtPoint(naming(here.function.function, place), names, shapes, start))
        conversions += here.conversions[len(function.conversions) :]
        numbers += [tensor.reshape(-1) for tensor in here.point.values()]
        start += at_points[-1].width
        given = {name: array for name, array in here.constants.items() if name in arguments}
        constants |= {f"{number} {name}": array for name, array in given.items()}
        state = {name: array for name, array in here.constants.items() if name not in arguments}
    assert first is not None
    flat = torch.cat(numbers)
    call = RaggedFunction(
        first.function, at_points, flat, is_second_order=is_second_order, seed=seed
    )
    point = {ALL_POINTS: flat}
    shapes_of_all = [[list(shape) for shape in each.shapes] for each in at_points]
    return replace(
        first,
        function=replace(
            first.function, function=call, arguments=(ALL_POINTS,), point=point, outputs=None
        ),
        point=point,
        constants={**constants, **state},
        conversions=(*function.conversions, *alike(conversions)),
        choices={**first.choices, "points": [list(first.point), shapes_of_all]},
    )


def naming(call: Callable[..., Any], place: str) -> Callable[..., Any]:
    """Return a function, or a loss over data, whose exceptions have a note of the place."""
    if isinstance(call, Curvature):
        return call.changed(lambda term: naming(term, place))

    def at_place(*tensors: Tensor) -> Any:
        with named_place(place):
            return call(*tensors)

    return at_place


@contextmanager
def named_place(place: str) -> Iterator[None]:
    """Say in exceptions of the body where they are from, in messages of ours and by notes."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}, {place}") from error
    except Exception as error:
        error.add_note(place)
        raise


def named_points(function: RaggedFunction, numbers: Tensor) -> list[Any]:
    """Return the tensors of each point as `autodiff_core` takes them."""
    return [
        nested(dict(zip(each.names, each.tensors(numbers), strict=True)))
        for each in function.points
    ]
