"""A loss over many samples as the sum of batches, of which one at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor

import autodiff_core
from autodiff_core import AxisLayout, Block, BlockStream
from jobs.functions.batch_sum import BatchSum

_HALF = (torch.float16, torch.bfloat16)


class SummedStream:
    """The derivative of a sum as blocks; the blocks of its terms are added up.

    Each term is linearised anew for every block and forgotten after it: memory holds the graph of
    one batch, at the price of one more evaluation of each batch for every block.

    Attributes:
        axis: Along which axis of the matrix the blocks follow one another.
        rows: The tensors along the rows.
        columns: The tensors along the columns.
        dtype: The dtype of the matrix.
        shape: (rows, columns).
        chunk_size: How many rows or columns a block has.
        points: None; there is one point.
        engine: The plain one: what is linearised for one block is not worth capturing.
        engine_refusal: None.
    """

    points = None
    engine = "plain"
    engine_refusal = None

    def __init__(self, function: BatchSum, inputs: Any, seed: int, **options: Any) -> None:
        """Evaluate the sum, and linearise its first term to learn the layout.

        Args:
            function: The sum.
            inputs: The point, as `autodiff_core.blocks` takes it.
            seed: Of torch's generators: with its number added, that of each term.
            **options: What else `autodiff_core.blocks` takes.
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
        self.value: Any = reduce(torch.add, values)
        self.axis = first.axis
        self.rows: AxisLayout = first.rows
        self.columns: AxisLayout = first.columns
        self.dtype = first.dtype
        self.shape = first.shape
        self.chunk_size = first.chunk_size

    def blocks(self, within: Iterable[range]) -> Iterator[Block]:
        """The blocks of given ranges of rows or columns, as `BlockStream.blocks` has them."""
        for wanted in within:
            for start in range(wanted.start, wanted.stop, self.chunk_size):
                yield self.block(start, min(start + self.chunk_size, wanted.stop))

    def block(self, start: int, stop: int) -> Block:
        """Compute one block: the sum of those of all terms."""
        totals: list[Tensor] = []
        block: Block | None = None
        fallbacks = {}
        for stream in self._streams():
            block = stream.block(start, stop)
            fallbacks.update({str(fallback): fallback for fallback in block.fallbacks})
            # Half precision would lose small terms beside a large sum.
            pieces = [p.float() if p.dtype in _HALF else p for p in block.pieces]
            totals = [a + b for a, b in zip(totals, pieces, strict=True)] if totals else pieces
        assert block is not None
        sums = tuple(a.to(b.dtype) for a, b in zip(totals, block.pieces, strict=True))
        return Block(block.axis, start, stop, sums, block.dtype, tuple(fallbacks.values()))

    def _streams(self) -> Iterator[BlockStream]:
        for number, term in enumerate(self._function.terms()):
            torch.manual_seed(self._seed + number)
            yield autodiff_core.blocks(term, self._inputs, **self._options)


def open_stream(function: Callable[..., Any], inputs: Any, *, seed: int, **options: Any) -> Any:
    """The derivative of a function as a stream of blocks, batch by batch where it is a sum.

    Args:
        function: The function.
        inputs: The point, as `autodiff_core.blocks` takes it.
        seed: Of torch's generators.
        **options: What else `autodiff_core.blocks` takes.

    Returns:
        A `BlockStream`, or what has the same attributes and methods.
    """
    if isinstance(function, BatchSum):
        return SummedStream(function, inputs, seed, **options)
    torch.manual_seed(seed)
    return autodiff_core.blocks(function, inputs, **options)


def product(
    operation: str,
    function: Callable[..., Any],
    inputs: Any,
    vector: Any,
    *,
    seed: int,
    **options: Any,
) -> Any:
    """A product of a function's derivative with one vector, batch by batch where it is a sum.

    Args:
        operation: ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        function: The function.
        inputs: The point.
        vector: The vector, as the operation takes it.
        seed: Of torch's generators.
        **options: What else the operation takes.

    Returns:
        The product, nested as `autodiff_core` returns it.
    """
    apply: Callable[..., Any] = getattr(autodiff_core, operation)
    if not isinstance(function, BatchSum):
        torch.manual_seed(seed)
        return apply(function, inputs, vector, **options)[1]
    total: Any = None
    for number, term in enumerate(function.terms()):
        torch.manual_seed(seed + number)
        image = apply(term, inputs, vector, **options)[1]
        total = image if total is None else _added(total, image)
    return total


def _added(first: Any, second: Any) -> Any:
    if isinstance(first, tuple | list):
        return type(first)(a + b for a, b in zip(first, second, strict=True))
    return first + second
