"""A loss over many samples as the sum of batches, with one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

import autodiff_core
from autodiff_core import AxisLayout, Block, BlockStream
from jobs.functions.batch_sum import BatchSum, added
from jobs.functions.curvature import Curvature
from jobs.functions.ragged import RaggedFunction
from jobs.machine.accelerator import seed_generators
from jobs.streams.curvature import curvature_value_and_product
from jobs.streams.stream import PlainStream

_HALF = (torch.float16, torch.bfloat16)


class SummedStream(PlainStream):
    """The derivative of a sum as blocks: each block is the sum of the blocks of its terms.

    Each term is linearized anew for every block and discarded after it: memory holds the graph of
    one batch, at the price of one more evaluation of each batch for every block. The engine is the
    plain one, because a linearization that computes one block is not worth capturing. The
    attributes are those of a `Stream`.
    """

    unit = 1
    is_divisible = True

    def __init__(self, function: BatchSum, inputs: Any, seed: int, **options: Any) -> None:
        """Evaluate the sum, and linearize its first term to learn the layout.

        Args:
            function: The sum.
            inputs: The point, as `autodiff_core.blocks` takes it.
            seed: The seed of torch's generators; each term uses it plus the term's index.
            **options: Further options of `autodiff_core.blocks`.
        """
        self._function = function
        self._inputs = inputs
        self._seed = seed
        self._options: dict[str, Any] = {**options, "engine": self.engine}
        values, first = [], None
        for stream in self._streams():
            first = first or stream
            values.append(stream.value)
        assert first is not None
        self.value: Any = reduce(added, values)
        self.axis = first.axis
        self.rows: AxisLayout = first.rows
        self.columns: AxisLayout = first.columns
        self.dtype = first.dtype
        self.shape = first.shape
        self.passes = self.axis.lines(self.shape)

    def block(self, start: int, stop: int) -> Block:
        """Compute one block as the sum of the blocks of all terms."""
        totals: list[Tensor] = []
        block: Block | None = None
        fallbacks = {}
        for stream in self._streams():
            block = stream.block(start, stop)
            fallbacks.update({str(fallback): fallback for fallback in block.fallbacks})
            # Half precision would round small terms away beside a large sum.
            pieces = [p.float() if p.dtype in _HALF else p for p in block.pieces]
            totals = [a + b for a, b in zip(totals, pieces, strict=True)] if totals else pieces
        assert block is not None
        sums = tuple(a.to(b.dtype) for a, b in zip(totals, block.pieces, strict=True))
        return Block(block.axis, start, stop, sums, block.dtype, tuple(fallbacks.values()))

    def rows_by_symmetry(self) -> None:
        """Return None: the terms of a sum are linearized anew, always by columns."""

    def _streams(self) -> Iterator[BlockStream]:
        for number, term in enumerate(self._function.terms()):
            seed_generators(self._seed + number)
            yield autodiff_core.blocks(term, self._inputs, **self._options)


def product(
    operation: str,
    function: Callable[..., Any],
    inputs: Any,
    vector: Sequence[Tensor],
    *,
    seed: int,
    **options: Any,
) -> tuple[Tensor, ...]:
    """Return a product of a function's derivative with one vector, batch by batch for a sum.

    Args:
        operation: ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        function: The function.
        inputs: The point.
        vector: The vector, one tensor for each tensor that the operation multiplies.
        seed: The seed of torch's generators.
        **options: Further options of `autodiff_core.blocks`.

    Returns:
        The product, one tensor for each tensor of the image.
    """
    return value_and_product(operation, function, inputs, vector, seed=seed, **options)[-1]


def value_and_product(
    operation: str,
    function: Callable[..., Any],
    inputs: Any,
    vector: Sequence[Tensor],
    *,
    seed: int,
    **options: Any,
) -> tuple[Any, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the function's value, of second order its gradient, and the `product`.

    All are from the same evaluation.
    """
    if isinstance(function, Curvature):
        return curvature_value_and_product(
            operation, function, inputs, vector, seed=seed, **options
        )
    if not isinstance(function, BatchSum):
        seed_generators(seed)
        return _value_and_product(operation, function, inputs, vector, **options)
    total: tuple[Any, Any, Any] | None = None
    known = options.pop("known", None)
    for number, term in enumerate(function.terms()):
        seed_of_term = function.seed_of(seed, number)
        if known is not None and isinstance(function, RaggedFunction):
            options["known"] = function.known_at(number, known)
        found = value_and_product(operation, term, inputs, vector, seed=seed_of_term, **options)
        total = found if total is None else added(total, found)
    assert total is not None
    return total


def _value_and_product(
    operation: str,
    function: Callable[..., Any],
    inputs: Any,
    vector: Sequence[Tensor],
    **options: Any,
) -> tuple[Any, Any, Any]:
    stream = autodiff_core.blocks(
        function,
        inputs,
        operation=operation,
        vectors=tuple(part.unsqueeze(0) for part in vector),
        engine="plain",
        # The caller compares products by several modes, with random vectors.
        check_modes=False,
        random_vectors=True,
        **options,
    )
    pieces = stream.block(0, 1).pieces
    linearized, shapes = stream.linearized, stream.columns.shapes
    is_second_order = linearized.operation.is_second_order
    value, gradient = stream.value, linearized.linearization.outputs if is_second_order else ()
    # Weights in double precision may be among what the graph holds.
    linearized.linearization.release()
    return (
        value,
        tuple(each.detach() for each in gradient),
        tuple(a.reshape(shape) for a, shape in zip(pieces, shapes, strict=True)),
    )
