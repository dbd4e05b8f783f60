"""The stream of derivative blocks of a function linearised at a point."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from autodiff_core._block import Axis, AxisLayout, Block
from autodiff_core._errors import Fallback
from autodiff_core._linearization.arguments import Tensors, check_vectors, prepare_vectors
from autodiff_core._linearization.complex import complex_columns, complex_rows
from autodiff_core._linearization.linearize import Choices, Linearized, linearize
from autodiff_core._tensors.vectors import StackedVectors, StandardBasis

_BYTES_OF_A_DEFAULT_CHUNK = 64 * 2**20
_LINES_OF_A_DEFAULT_CHUNK = 64


def blocks(
    func: Callable[..., Any],
    inputs: Any,
    *,
    operation: str,
    strategy: str = "reverse-loop",
    vectors: Any = None,
    chunk_size: int | None = None,
    rows: range | None = None,
    columns: range | None = None,
    argnums: int | Sequence[int] | None = None,
    points: bool = False,
    engine: str = "auto",
) -> BlockStream:
    """Linearise a function at a point and stream its derivative block by block.

    Args:
        func: The function, called with the tuple of inputs as its arguments. For ``hessian``,
            ``vhp`` and ``hvp`` it returns one tensor with one element.
        inputs: A tensor, a tuple of arguments, or another nested structure of tensors.
        operation: ``jacobian``, ``hessian``, ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        strategy: ``reverse-loop``, ``vectorize``, ``forward-mode`` or ``forward-loop``.
        vectors: For the products: the vectors, nested like the outputs for ``vjp`` and like the
            inputs for the others, each tensor with a leading dimension over vectors.
        chunk_size: How many rows, columns or vectors make a block; None takes at most 64 of them
            and 64 MiB.
        rows: The rows of the matrix that are wanted, with step 1; None stands for all.
        columns: The columns that are wanted, likewise.
        argnums: Which arguments to differentiate; None stands for all.
        points: Whether all inputs have a leading dimension over points at each of which the
            whole derivative is taken.
        engine: How chunks are computed: one of those that `engines` names, or ``auto``, which
            takes the captured one where it works and agrees with the plain one.

    Returns:
        A stream that evaluates nothing more until it is iterated over.

    Raises:
        TypeError: Inputs or outputs that are not tensors.
        ValueError: A name, range or combination that does not exist.
        RuntimeError: Vectors of the wrong size, or a function that is not scalar.
    """
    pending: list[Fallback] = []
    choices = Choices(strategy, argnums=argnums, points=points, engine=engine)
    linearized = linearize(operation, func, inputs, choices, pending.append)
    if linearized.operation.product is None:
        if vectors is not None:
            raise ValueError(f"{operation}: vectors are for the products vjp, jvp, vhp and hvp")
    elif vectors is None or points or rows is not None or columns is not None:
        raise ValueError(
            f"{operation}: a product needs vectors, and takes no points, rows or columns"
        )
    stack = None if vectors is None else stacked_vectors(vectors, linearized, operation)
    return BlockStream(
        linearized, pending, vectors=stack, chunk_size=chunk_size, rows=rows, columns=columns
    )


def stacked_vectors(
    vectors: Any, linearized: Linearized, operation: str, *, stacked: bool = True
) -> StackedVectors:
    """Check a user's vectors against what they multiply.

    Args:
        vectors: Nested tensors.
        linearized: The linearised function.
        operation: The function that the user called, for messages.
        stacked: Whether the tensors have a leading dimension over vectors; else one is added.

    Raises:
        TypeError: A leaf is not a tensor.
        RuntimeError: A tensor has the wrong size.
    """
    leaves = Tensors.of(vectors, operation, "v").leaves
    is_pullback = linearized.operation.product == "pullback"
    references = linearized.linearization.outputs if is_pullback else linearized.primals
    check_vectors(leaves, references, operation, stacked=stacked)
    prepared = prepare_vectors(leaves, create_graph=linearized.keep_graph)
    return StackedVectors(prepared if stacked else tuple(part.unsqueeze(0) for part in prepared))


class BlockStream:
    """The derivative of a linearised function as blocks, computed when asked for.

    Attributes:
        axis: Along which axis of the matrix the blocks follow one another.
        rows: The tensors along the rows: the outputs, for a Hessian the inputs. For a product a
            single axis over the vectors.
        columns: The tensors along the columns: the inputs; for a product the image's tensors.
        dtype: The dtype of the matrix, the promotion of those of all tensors along its axes.
        points: The number of points, or None.
        chunk_size: How many rows or columns a block has.
    """

    def __init__(
        self,
        linearized: Linearized,
        pending: list[Fallback],
        *,
        vectors: StackedVectors | None = None,
        chunk_size: int | None = None,
        rows: range | None = None,
        columns: range | None = None,
    ) -> None:
        """Describe the stream; nothing is computed yet.

        Args:
            linearized: The linearised function.
            pending: Where the linearised function reports fallbacks; emptied into the blocks.
            vectors: The vectors of a product.
            chunk_size: How many rows, columns or vectors make a block.
            rows: The wanted rows.
            columns: The wanted columns.
        """
        self.linearized = linearized
        self.points = linearized.points
        self._pending = pending
        outputs, inputs = linearized.linearization.outputs, linearized.primals
        if vectors is None:
            self.axis = linearized.linearization.axis
            self.rows = AxisLayout.of(outputs, points=self.points)
            self._lines = _matrix_lines(linearized)
            self.columns = AxisLayout.of(inputs, points=self.points)
            dtypes = (*self.rows.dtypes, *self.columns.dtypes)
        else:
            is_pullback = linearized.operation.product == "pullback"
            self.axis = Axis.ROWS
            self.rows = AxisLayout(((len(vectors),),), (torch.int64,))
            self._lines = _product_lines(linearized, vectors)
            self.columns = AxisLayout.of(inputs if is_pullback else outputs)
            dtypes = self.columns.dtypes
        self.dtype = reduce(torch.promote_types, dtypes)
        wanted_rows = _selection(rows, self.rows.size, "rows")
        wanted_columns = _selection(columns, self.columns.size, "columns")
        is_by_rows = self.axis is Axis.ROWS
        self._wanted, self._other = (
            (wanted_rows, wanted_columns) if is_by_rows else (wanted_columns, wanted_rows)
        )
        self.shape = (len(wanted_rows), len(wanted_columns))
        self.chunk_size = _chunk_size(chunk_size, self)

    def rows_by_symmetry(self) -> BlockStream:
        """The same stream with the columns that it computes given as rows.

        Only for those who know that the Hessian is symmetric, which is theirs to find out: the
        second derivatives of a function that is not twice continuously differentiable need not
        be. Rows are lines in memory as they are computed, columns have to be turned.

        Raises:
            ValueError: The stream is not of a whole Hessian by columns.
        """
        is_hessian = self.linearized.operation.name == "hessian"
        is_whole = self.shape == (self.rows.size, self.columns.size)
        if not (is_hessian and is_whole and self.axis is Axis.COLUMNS):
            raise ValueError("rows_by_symmetry: valid for whole Hessians by forward-mode")
        by_rows = copy.copy(self)
        by_rows.axis = Axis.ROWS
        return by_rows

    @property
    def value(self) -> Any:
        """What the function returned at the point, nested as there, without history."""
        outputs = self.linearized.outputs
        return outputs.nest([tensor.detach() for tensor in outputs.leaves])

    @property
    def engine(self) -> str:
        """The name of the engine that computes; final after the first block."""
        return self.linearized.linearization.engine.used

    @property
    def engine_refusal(self) -> str | None:
        """Why the plain engine computes though another was tried, in one line; else None."""
        return self.linearized.linearization.engine.refusal

    def __iter__(self) -> Iterator[Block]:
        """All blocks in order."""
        return self.blocks([self._wanted])

    def blocks(self, within: Iterable[range]) -> Iterator[Block]:
        """The blocks of given ranges of rows or columns, such as those still missing.

        Args:
            within: Ranges along `axis`, each cut into chunks of `chunk_size`.
        """
        for wanted in within:
            for start in range(wanted.start, wanted.stop, self.chunk_size):
                yield self.block(start, min(start + self.chunk_size, wanted.stop))

    def block(self, start: int, stop: int) -> Block:
        """Compute one block.

        Args:
            start: The first row or column, in those of the whole matrix.
            stop: One past the last.

        Raises:
            ValueError: The range is empty or outside the matrix.
        """
        length = self.axis.lines((self.rows.size, self.columns.size))
        if not 0 <= start < stop <= length:
            raise ValueError(f"block: {self.axis} {start} to {stop} are not within 0 to {length}")
        pieces = self._select(self._lines(start, stop), stop - start)
        if not self.linearized.keep_graph:
            pieces = tuple(piece.detach() for piece in pieces)
        fallbacks = tuple(self._pending)
        self._pending.clear()
        return Block(self.axis, start, stop, pieces, self.dtype, fallbacks)

    def matrix(self) -> Tensor:
        """The whole of what is wanted as one tensor in memory.

        Returns:
            Shape `shape`, with a leading dimension over points where there are many.
        """
        leading = () if self.points is None else (self.points,)
        device = self.linearized.primals[0].device
        matrix = torch.empty((*leading, *self.shape), dtype=self.dtype, device=device)
        for block in self:
            start, stop = block.start - self._wanted.start, block.stop - self._wanted.start
            matrix[(..., *self.axis.region(start, stop))] = block.values
        return matrix

    def _select(self, lines: Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
        leading = (count,) if self.points is None else (count, self.points)
        across = self.columns if self.axis is Axis.ROWS else self.rows
        flat = [
            line.reshape(*leading, torch.Size(shape).numel())
            for line, shape in zip(lines, across.shapes, strict=True)
        ]
        if self._other == range(across.size):
            return tuple(flat)
        overlaps = across.overlaps(self._other.start, self._other.stop)
        selected = tuple(flat[index][..., first:last] for index, first, last in overlaps)
        return selected or tuple(line[..., :0] for line in flat)


def _matrix_lines(linearized: Linearized) -> Callable[[int, int], tuple[Tensor, ...]]:
    linearization, points = linearized.linearization, linearized.points
    outputs, inputs = linearization.outputs, linearized.primals
    is_by_rows = linearization.axis is Axis.ROWS
    if any(tensor.is_complex() for tensor in (*outputs, *inputs)):
        complex_lines = complex_rows if is_by_rows else complex_columns
        return complex_lines(linearization.lines, outputs, inputs, points)
    basis = StandardBasis(outputs if is_by_rows else inputs, points=points)
    return lambda start, stop: linearization.lines(basis, start, stop)


def _product_lines(
    linearized: Linearized, vectors: StackedVectors
) -> Callable[[int, int], tuple[Tensor, ...]]:
    linearization = linearized.linearization
    is_pullback = linearized.operation.product == "pullback"
    apply = linearization.pullback if is_pullback else linearization.pushforward
    return lambda start, stop: apply(vectors, start, stop)


def _selection(wanted: range | None, size: int, name: str) -> range:
    if wanted is None:
        return range(size)
    if wanted.step != 1 or not 0 <= wanted.start <= wanted.stop <= size:
        raise ValueError(f"{name}={wanted}: valid is a range with step 1 within range(0, {size})")
    return wanted


def _chunk_size(given: int | None, stream: BlockStream) -> int:
    if given is not None:
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise ValueError(f"chunk_size={given!r}: valid is an integer of at least 1")
        return given
    elements = (stream.rows.size + stream.columns.size) * (stream.points or 1)
    line = max(1, elements * stream.dtype.itemsize)
    return max(1, min(_LINES_OF_A_DEFAULT_CHUNK, _BYTES_OF_A_DEFAULT_CHUNK // line))
