"""The stream of derivative blocks of a function linearized at a point."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from autodiff_core._block import Axis, AxisLayout, Block
from autodiff_core._engines.choice import EngineChoice
from autodiff_core._errors import Fallback
from autodiff_core._linearization.adjoint import KnownPullback
from autodiff_core._linearization.arguments import Tensors, check_vectors, prepare_vectors
from autodiff_core._linearization.complex import complex_columns, complex_rows
from autodiff_core._linearization.linearize import Choices, Linearized, linearize
from autodiff_core._linearization.nesting import outside_inference_mode
from autodiff_core._tensors.vectors import LazyVectors, StackedVectors, StandardBasis

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
    check_modes: bool = True,
    check_second_order: bool = True,
    random_vectors: bool = False,
    known: KnownPullback | None = None,
) -> BlockStream:
    """Linearize a function at a point and stream its derivative block by block.

    Args:
        func: The function, called with the tuple of inputs as its arguments. For ``hessian``,
            ``vhp`` and ``hvp`` it returns one tensor with one element.
        inputs: A tensor, a tuple of arguments, or another nested structure of tensors.
        operation: ``jacobian``, ``hessian``, ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        strategy: ``reverse-loop``, ``vectorize``, ``forward-mode`` or ``forward-loop``.
        vectors: The vectors of a product, nested like the outputs for ``vjp`` and like the
            inputs for the others, each tensor with a leading dimension over vectors; or
            `LazyVectors`.
        chunk_size: How many rows, columns or vectors make a block; None chooses at most 64 of
            them and 64 MiB.
        rows: The rows of the matrix to compute, with step 1; None stands for all.
        columns: The columns to compute, with step 1; None stands for all.
        argnums: Which arguments to differentiate; None stands for all.
        points: Whether all inputs have a leading dimension over points, arguments that are not
            differentiated included; the whole derivative is computed at each of them.
        engine: The engine that computes chunks: one that `engines` returns, or ``auto`` for the
            captured engine where it works and agrees with the plain one.
        check_modes: Whether a forward strategy refuses a function of which reverse mode gives
            another derivative. If not, the first block reports it among its fallbacks: for callers
            who compare the blocks with numbers of their own.
        check_second_order: Whether second derivatives through a custom `torch.autograd.Function`
            are compared with differences of the gradient; for callers who do so themselves.
        random_vectors: Whether the vectors are random: a forward strategy then compares its modes
            with the first of them, not with one of its own, which saves an evaluation.
        known: A product in reverse mode with which a forward strategy compares itself, in place of
            an evaluation and a product of its own.

    Returns:
        A stream; no derivative is computed before it is iterated over.

    Raises:
        TypeError: Inputs or outputs that are not tensors.
        ValueError: An invalid name, range or combination of arguments.
        RuntimeError: Vectors of the wrong size, or a function that is not scalar.
        ModesDisagreeError: Forward and reverse mode disagree, and `check_modes` is set.
    """
    pending: list[Fallback] = []
    choices = Choices(
        strategy,
        argnums=argnums,
        points=points,
        engine=engine,
        check_modes=check_modes,
        check_second_order=check_second_order,
        tangent=_first(vectors, operation) if random_vectors else None,
        known=known,
    )
    with outside_inference_mode():
        linearized = linearize(operation, func, inputs, choices, pending.append)
    if linearized.operation.product is None:
        if vectors is not None:
            raise ValueError(f"{operation}: vectors are for the products vjp, jvp, vhp and hvp")
    elif vectors is None or points or rows is not None or columns is not None:
        raise ValueError(
            f"{operation}: a product needs vectors, and takes no points, rows or columns"
        )
    with outside_inference_mode():
        stack = None if vectors is None else stacked_vectors(vectors, linearized, operation)
        return BlockStream(
            linearized, pending, vectors=stack, chunk_size=chunk_size, rows=rows, columns=columns
        )


def _first(vectors: Any, operation: str) -> tuple[Tensor, ...]:
    return tuple(leaf.detach()[0] for leaf in Tensors.of(vectors, operation, "v").leaves)


def stacked_vectors(
    vectors: Any, linearized: Linearized, operation: str, *, stacked: bool = True
) -> StackedVectors | LazyVectors:
    """Return a user's vectors, checked against the tensors that they multiply.

    Args:
        vectors: Nested tensors, or lazy vectors, of which the first is checked.
        linearized: The linearized function.
        operation: The function that the user called, for error messages.
        stacked: Whether the tensors have a leading dimension over vectors; else one is added.

    Raises:
        TypeError: A leaf is not a tensor.
        RuntimeError: A tensor has the wrong size.
    """
    is_pullback = linearized.operation.product == "pullback"
    references = linearized.linearization.outputs if is_pullback else linearized.primals
    if isinstance(vectors, LazyVectors):
        check_vectors(vectors.stack(0, 1), references, operation, stacked=True)
        return vectors
    leaves = Tensors.of(vectors, operation, "v").leaves
    check_vectors(leaves, references, operation, stacked=stacked)
    prepared = prepare_vectors(leaves, create_graph=linearized.keep_graph)
    return StackedVectors(prepared if stacked else tuple(part.unsqueeze(0) for part in prepared))


class BlockStream:
    """The derivative of a linearized function as blocks, computed on demand.

    Attributes:
        linearized: The linearized function.
        axis: The axis of the matrix along which the blocks follow one another.
        rows: The layout of the rows: the outputs, or for a Hessian the inputs. For a product a
            single axis over the vectors.
        columns: The layout of the columns: the inputs; for a product the tensors of the image.
        shape: The number of requested rows and columns.
        dtype: The dtype of the matrix: the dtypes of all tensors along its axes, promoted.
        points: The number of points; None for a single point without a leading dimension.
        chunk_size: The number of rows or columns in a block.
    """

    def __init__(
        self,
        linearized: Linearized,
        pending: list[Fallback],
        *,
        vectors: StackedVectors | LazyVectors | None = None,
        chunk_size: int | None = None,
        rows: range | None = None,
        columns: range | None = None,
    ) -> None:
        """Describe the stream without computing anything.

        Args:
            linearized: The linearized function.
            pending: The list to which the linearized function appends fallbacks; each block takes
                those that are in it.
            vectors: The vectors of a product.
            chunk_size: How many rows, columns or vectors make a block.
            rows: The requested rows.
            columns: The requested columns.
        """
        self.linearized = linearized
        self.points = linearized.points
        self._pending = pending
        self.rows, self.columns = _layouts(linearized, vectors)
        dtypes = self.columns.dtypes
        if vectors is None:
            self.axis = linearized.linearization.axis
            self._lines = _matrix_lines(linearized)
            dtypes = (*self.rows.dtypes, *dtypes)
        else:
            self.axis = Axis.ROWS
            self._lines = _product_lines(linearized, vectors)
        self.dtype = reduce(torch.promote_types, dtypes)
        requested_rows = _selection(rows, self.rows.size, "rows")
        requested_columns = _selection(columns, self.columns.size, "columns")
        is_by_rows = self.axis is Axis.ROWS
        self._requested, self._other = (
            (requested_rows, requested_columns)
            if is_by_rows
            else (requested_columns, requested_rows)
        )
        self.shape = (len(requested_rows), len(requested_columns))
        self.chunk_size = _chunk_size(chunk_size, self)

    def rows_by_symmetry(self) -> BlockStream:
        """Return a stream of the same Hessian that presents its columns as rows.

        The caller must know that the Hessian is symmetric: that of a function that is not twice
        continuously differentiable need not be. Lines are computed contiguously, which suits rows;
        columns have to be transposed.

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
        """The function's value at the point, nested as returned, without autograd history."""
        outputs = self.linearized.outputs
        return outputs.nest([tensor.detach() for tensor in outputs.leaves])

    @property
    def engine(self) -> str:
        """The name of the engine in use; final after the first block."""
        return self.linearized.linearization.engine.used

    @property
    def recorder(self) -> EngineChoice | None:
        """What lets an engine that records the derivative wait; None where no engine could record.

        Until then the plain engine computes: recording may take longer than a short run.
        """
        linearization = self.linearized.linearization
        is_by_rows = linearization.axis is Axis.ROWS
        space = linearization.outputs if is_by_rows else self.linearized.primals
        engine = linearization.engine
        is_able = len(linearization.engines) > 1 and engine.can_record(space)
        return engine if is_able else None

    @property
    def nodes(self) -> int:
        """The number of operators in the graph of the derivative; 0 if autograd has no graph."""
        return self.linearized.linearization.nodes

    @property
    def engine_refusal(self) -> str | None:
        """The reason, in one line, why a faster engine was tried but is not used; else None."""
        return self.linearized.linearization.engine.refusal

    def __iter__(self) -> Iterator[Block]:
        """Return an iterator over all blocks in order."""
        return self.blocks([self._requested])

    def blocks(self, within: Iterable[range]) -> Iterator[Block]:
        """Yield the blocks of given ranges of rows or columns, such as those still missing.

        Args:
            within: Ranges along `axis`, each cut into chunks of `chunk_size`.
        """
        for requested in within:
            for start in range(requested.start, requested.stop, self.chunk_size):
                yield self.block(start, min(start + self.chunk_size, requested.stop))

    def block(self, start: int, stop: int) -> Block:
        """Compute one block.

        Args:
            start: The first row or column, counted in the whole matrix.
            stop: One past the last row or column.

        Raises:
            ValueError: The range is empty or outside the matrix.
        """
        length = self.axis.lines((self.rows.size, self.columns.size))
        if not 0 <= start < stop <= length:
            raise ValueError(f"block: {self.axis} {start} to {stop} are not within 0 to {length}")
        with outside_inference_mode():
            pieces = self._select(self._lines(start, stop), stop - start)
        if not self.linearized.keep_graph:
            pieces = tuple(piece.detach() for piece in pieces)
        fallbacks = tuple(self._pending)
        self._pending.clear()
        return Block(self.axis, start, stop, pieces, self.dtype, fallbacks)

    def pullback(self, cotangent: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the product of one cotangent with the derivative, as the blocks are computed.

        Args:
            cotangent: For each tensor along the rows of the derivative one of its shape and dtype;
                zeros for integers.

        Returns:
            For each differentiated tensor one of its shape.

        Raises:
            NotImplementedError: The strategy computes columns.
        """
        stacked = StackedVectors([part.unsqueeze(0) for part in cotangent])
        with outside_inference_mode():
            images = self.linearized.linearization.pullback(stacked, 0, 1)
        return tuple(image.squeeze(0).detach() for image in images)

    def matrix(self) -> Tensor:
        """Return the requested rows and columns as one tensor in memory.

        Returns:
            A tensor of shape `shape`, with a leading dimension over points where there are many.
        """
        leading = () if self.points is None else (self.points,)
        device = self.linearized.primals[0].device
        matrix = torch.empty((*leading, *self.shape), dtype=self.dtype, device=device)
        for block in self:
            start, stop = block.start - self._requested.start, block.stop - self._requested.start
            matrix[(..., *self.axis.region(start, stop))] = block.values
        return matrix

    def _select(self, lines: Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
        leading = (count,) if self.points is None else (count, self.points)
        across = self.columns if self.axis is Axis.ROWS else self.rows
        flat = [
            line.reshape(*leading, size) for line, size in zip(lines, across.sizes, strict=True)
        ]
        if self._other == range(across.size):
            return tuple(flat)
        overlaps = across.overlaps(self._other.start, self._other.stop)
        selected = tuple(flat[index][..., first:last] for index, first, last in overlaps)
        return selected or tuple(line[..., :0] for line in flat)


def _layouts(
    linearized: Linearized, vectors: StackedVectors | LazyVectors | None
) -> tuple[AxisLayout, AxisLayout]:
    """Return the layouts of the rows and columns of a matrix, or of a product with vectors."""
    outputs, inputs = linearized.linearization.outputs, linearized.primals
    if vectors is None:
        points = linearized.points
        return AxisLayout.of(outputs, points=points), AxisLayout.of(inputs, points=points)
    is_pullback = linearized.operation.product == "pullback"
    rows = AxisLayout(((len(vectors),),), (torch.int64,))
    return rows, AxisLayout.of(inputs if is_pullback else outputs)


def _matrix_lines(linearized: Linearized) -> Callable[[int, int], tuple[Tensor, ...]]:
    linearization, points = linearized.linearization, linearized.points
    outputs, inputs = linearization.outputs, linearized.primals
    is_by_rows = linearization.axis is Axis.ROWS
    if any(tensor.is_complex() for tensor in (*outputs, *inputs)):
        complex_lines = complex_rows if is_by_rows else complex_columns
        return complex_lines(linearization.lines, outputs, inputs, points, linearization.precision)
    basis = StandardBasis(outputs if is_by_rows else inputs, points=points)
    return lambda start, stop: linearization.lines(basis, start, stop)


def _product_lines(
    linearized: Linearized, vectors: StackedVectors | LazyVectors
) -> Callable[[int, int], tuple[Tensor, ...]]:
    linearization = linearized.linearization
    is_pullback = linearized.operation.product == "pullback"
    apply = linearization.pullback if is_pullback else linearization.pushforward
    return lambda start, stop: apply(vectors, start, stop)


def _selection(requested: range | None, size: int, name: str) -> range:
    if requested is None:
        return range(size)
    if requested.step != 1 or not 0 <= requested.start <= requested.stop <= size:
        raise ValueError(
            f"{name}={requested}: valid is a range with step 1 within range(0, {size})"
        )
    return requested


def _chunk_size(given: int | None, stream: BlockStream) -> int:
    if given is not None:
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise ValueError(f"chunk_size={given!r}: valid is an integer of at least 1")
        return given
    elements = (stream.rows.size + stream.columns.size) * (stream.points or 1)
    line = max(1, elements * stream.dtype.itemsize)
    return max(1, min(_LINES_OF_A_DEFAULT_CHUNK, _BYTES_OF_A_DEFAULT_CHUNK // line))
