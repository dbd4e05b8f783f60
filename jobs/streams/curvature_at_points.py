"""Curvature matrices of a loss at each of many points of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from autodiff_core import Axis, AxisLayout, Block, Fallback, GaussNewton
from jobs.functions.at_points import PointsFunction
from jobs.functions.elements import elements_of
from jobs.functions.part import Lines
from jobs.machine.accelerator import seed_generators
from jobs.streams.at_points import (
    blocks_at_points,
    matrices,
    parts_of_points,
    stacked,
    values_of_points,
)
from jobs.streams.curvature import has_curvature, require_curvature
from jobs.streams.stream import PlainStream


class CurvaturePointStream(PlainStream):
    """JᵀHJ at many points as blocks of rows, those of one point after another's.

    The Jacobians J of the outputs at all points of a block are formed together, and so are the
    products of their rows with the Hessians H of the losses. Those of a point that is larger than a
    block are kept for its next rows. The attributes are those of a `Stream`.
    """

    axis = Axis.ROWS
    is_divisible = True

    def __init__(
        self,
        function: PointsFunction,
        inputs: Sequence[Tensor],
        *,
        seed: int,
        strategy: str,
        lines: Lines | None = None,
    ) -> None:
        """Evaluate at all points.

        Args:
            function: The loss at all points.
            inputs: The tensors of the points, each with a leading dimension over points.
            seed: The seed of torch's generators.
            strategy: A strategy of `autodiff_core`.
            lines: Which rows and columns are computed; None for all.

        Raises:
            JobError: The loss has no curvature in the outputs of any point.
        """
        assert function.kind is not None
        self._function, self._inputs, self._seed = function, tuple(inputs), seed
        self._strategy = strategy
        first = [tensor[0] for tensor in self._inputs]
        self._lines: list[Tensor | slice] = [slice(None), slice(None)]
        self.rows = self.columns = AxisLayout.of(first)
        if lines is not None:
            sides = (lines.rows, lines.columns)
            self.rows, self.columns = (AxisLayout.of(elements_of(first, each)) for each in sides)
            self._lines = [torch.from_numpy(each.numbers).to(first[0].device) for each in sides]
        self.unit = self.passes = self.rows.size
        self.shape = (len(self._inputs[0]) * self.unit, self.columns.size)
        self.value: Any = values_of_points(function, self._inputs, seed)
        self._kept: tuple[int, GaussNewton, Tensor] | None = None
        self.dtype = self._at(slice(0, 1))[0].dtype
        require_curvature(function.kind, self._are_curved())

    def block(self, start: int, stop: int) -> Block:
        """Compute one block.

        Args:
            start: The first row, counted over all points.
            stop: One past the last.
        """
        first, last = start // self.unit, -(-stop // self.unit)
        before = first * self.unit
        if last - first > 1:
            matrix, jacobians, fallbacks = self._jacobians(slice(first, last))
            values = self._rows(matrix, jacobians, 0, self.unit).reshape(-1, self.shape[1])
            values = values[start - before : stop - before]
        else:
            matrix, jacobians, fallbacks = self._kept_at(first)
            values = self._rows(matrix, jacobians, start - before, stop - before)[0]
        fallbacks |= matrix.fallbacks
        values = values.to(self.dtype)
        return Block(Axis.ROWS, start, stop, (values,), self.dtype, tuple(fallbacks.values()))

    def rows_by_symmetry(self) -> None:
        """Return None: the blocks are of rows already."""

    def _rows(self, matrix: GaussNewton, jacobians: Tensor, start: int, stop: int) -> Tensor:
        """Return rows of each point, of shape (points, stop - start, columns).

        Args:
            matrix: JᵀHJ of all points as one matrix, whose outputs are those of all of them.
            jacobians: J of each point.
            start: The first row of each point.
            stop: One past the last.
        """
        count, outputs, _ = jacobians.shape
        rows, columns = (jacobians[:, :, lines] for lines in self._lines)
        chosen = rows[:, :, start:stop].permute(2, 0, 1)
        curved = matrix.curved(chosen.reshape(stop - start, -1))
        lines = curved.reshape(stop - start, count, outputs).transpose(0, 1)
        return lines.to(jacobians.dtype) @ columns

    def _kept_at(self, point: int) -> tuple[GaussNewton, Tensor, dict[str, Fallback]]:
        fallbacks: dict[str, Fallback] = {}
        if self._kept is None or self._kept[0] != point:
            self._kept = None
            matrix, jacobians, fallbacks = self._jacobians(slice(point, point + 1))
            self._kept = (point, matrix, jacobians)
        return *self._kept[1:], fallbacks

    def _jacobians(self, points: slice) -> tuple[GaussNewton, Tensor, dict[str, Fallback]]:
        """Return JᵀHJ of some points as one matrix, and J of shape (points, outputs, inputs)."""
        stream = blocks_at_points(
            _seeded(self._function.outputs, self._seed),
            self._inputs,
            self._function.constants,
            points,
            operation="jacobian",
            strategy=self._strategy,
            engine=self.engine,
            check_modes=False,
        )
        return self._at(points)[0], *matrices(stream)

    def _at(self, points: slice) -> tuple[GaussNewton, Callable[[Tensor], Tensor]]:
        given = [tensor[points] for tensor in self._inputs]
        return matrix_at_points(self._function, points, given, self._seed, self._strategy)

    def _are_curved(self) -> Iterator[bool]:
        generator = torch.Generator().manual_seed(self._seed)
        for first, part in parts_of_points(self._inputs):
            matrix = self._at(slice(first, first + len(part[0])))[0]
            yield has_curvature(matrix, generator)


def _seeded(call: Callable[..., Any], seed: int) -> Callable[..., Any]:
    """Return a function that draws the same random numbers each time."""

    def seeded(*tensors: Tensor) -> Any:
        seed_generators(seed)
        return call(*tensors)

    return seeded


def matrix_at_points(
    function: PointsFunction,
    points: slice,
    inputs: Sequence[Tensor],
    seed: int,
    strategy: str = "vectorize",
) -> tuple[GaussNewton, Callable[[Tensor], Tensor]]:
    """Return the matrices of some points as one, and the losses as a function of all outputs.

    The points are independent of one another, so that the matrix of the sum of their losses is
    block diagonal, with the matrices of the points as blocks.

    Args:
        function: The loss at all points.
        points: Which points.
        inputs: Their tensors.
        seed: The seed of torch's generators at each evaluation.
        strategy: The strategy.
    """
    constants = [each[points] for each in function.constants]
    outputs_at = stacked(_seeded(function.outputs, seed), points.start)
    losses_at = stacked(function.loss, points.start)

    def outputs(*given: Tensor) -> Tensor:
        return outputs_at(*given, *constants)

    # Not the matrix itself, which would hold its memory by a circle of references.
    centre: list[Tensor] = []

    def losses(given: Tensor) -> Tensor:
        return losses_at(given, centre[0], *constants)

    matrix = GaussNewton(outputs, lambda given: losses(given).sum(), inputs, strategy=strategy)
    centre.append(matrix.outputs)
    return matrix, losses


def curvature_at_points(
    operation: str,
    function: PointsFunction,
    points: slice,
    inputs: Sequence[Tensor],
    vector: Sequence[Tensor],
    *,
    seed: int,
    strategy: str,
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    """Return losses, gradients and products of some points.

    They are those of `curvature_value_and_product`, at each point.

    Args:
        operation: ``vhp``, ``hvp`` or ``vjp``.
        function: The loss at all points.
        points: Which points.
        inputs: The tensors of the points, which may have moved from those of the job.
        vector: The vectors of the products, each tensor with a leading dimension over points.
        seed: The seed of torch's generators.
        strategy: How tangents are pushed forward: ``forward-loop`` or ``reverse-loop``.

    Returns:
        The losses (of the second order their sum), the gradients (empty for ``vjp``), and the
        products.
    """
    is_of_second_order = operation in ("vhp", "hvp")
    base = [x[points].to(y.dtype) for x, y in zip(function.base, inputs, strict=True)]
    matrix, losses = matrix_at_points(
        function, points, inputs if is_of_second_order else base, seed
    )
    constants = [each[points] for each in function.constants]
    outputs_at = stacked(_seeded(function.outputs, seed), points.start)
    with torch.enable_grad():
        # As a derivative evaluates it: a function may differentiate inside.
        copies = (x.detach().clone().requires_grad_() for x in inputs)
        leaf = outputs_at(*copies, *constants).detach().clone().requires_grad_()
        values = losses(leaf)
        (cotangent,) = torch.autograd.grad(values.sum(), leaf)
    pulled = matrix.pulled_back(cotangent)
    if not is_of_second_order:
        return values.detach(), (), pulled
    return values.detach().sum(), pulled, matrix.product(vector, strategy)
