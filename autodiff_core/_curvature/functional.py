"""The generalized Gauss-Newton matrix as one public function, and block by block."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from autodiff_core._block import Axis, Block
from autodiff_core._curvature.gauss_newton import GaussNewton
from autodiff_core._errors import FallbackWarning
from autodiff_core._linearization.arguments import Arguments

_STRATEGIES = ("reverse-loop", "vectorize", "forward-mode", "forward-loop")


def ggn(
    func: Callable[..., Tensor],
    loss: Callable[[Tensor], Tensor],
    inputs: Any,
    *,
    data: Sequence[Tensor] = (),
    strategy: str = "vectorize",
    chunk_size: int | None = None,
) -> Any:
    """Return the generalized Gauss-Newton matrix JᵀHJ.

    J is the Jacobian of the outputs, H the Hessian of the loss with respect to them. It is
    symmetric, and positive semidefinite where the loss is convex in the outputs. With the losses of
    samples as outputs, and half of their summed squares as the loss, it is the empirical Fisher
    matrix, the sum of gradient gradientᵀ.

    Args:
        func: Called with the inputs, as for `jacobian`, and after them the data; returns one real
            tensor.
        loss: Called with that tensor; returns one number.
        inputs: A tensor, a tuple of arguments, or another nested structure of tensors.
        data: Tensors with a leading dimension over samples, as the outputs have, where the outputs
            of a sample depend on its own data only: reverse mode then takes as many passes as one
            sample has outputs.
        strategy: ``vectorize`` and ``reverse-loop`` form J by reverse mode and multiply matrices;
            ``forward-mode`` and ``forward-loop`` multiply unit vectors by J, H and Jᵀ in turn.
        chunk_size: How many rows are computed at once; None chooses as for `blocks`.

    Returns:
        The nesting of the inputs, twice, with tensors of shape input.shape + input.shape.

    Raises:
        TypeError: Inputs or outputs that are not real tensors.
        ValueError: An invalid strategy, or samples that depend on one another.
    """
    stream = ggn_blocks(func, loss, inputs, data=data, strategy=strategy, chunk_size=chunk_size)
    lines = torch.cat([block.values for block in stream] or [torch.empty(0, 0)])
    for fallback in stream.fallbacks.values():
        warnings.warn(str(fallback), FallbackWarning, stacklevel=2)
    layout = stream.rows
    sizes = [torch.Size(shape).numel() for shape in layout.shapes]
    entries = [
        [
            part.reshape(*shape, *other)
            for part, other in zip(row.split(sizes, 1), layout.shapes, strict=True)
        ]
        for row, shape in zip(lines.split(sizes), layout.shapes, strict=True)
    ]
    nest = Arguments(inputs, None, "ggn").differentiated.nest
    return nest([nest(row) for row in entries])


def ggn_blocks(
    func: Callable[..., Tensor],
    loss: Callable[[Tensor], Tensor],
    inputs: Any,
    *,
    data: Sequence[Tensor] = (),
    strategy: str = "vectorize",
    chunk_size: int | None = None,
) -> GaussNewtonStream:
    """Stream the generalized Gauss-Newton matrix in blocks of rows; the arguments are of `ggn`."""
    if strategy not in _STRATEGIES:
        raise ValueError(f"ggn: strategy={strategy!r}: valid are {', '.join(_STRATEGIES)}")
    arguments = Arguments(inputs, None, "ggn")
    leaves = arguments.differentiated.leaves

    def flat(*tensors: Tensor) -> Tensor:
        given, samples = tensors[: len(leaves)], tensors[len(leaves) :]
        return arguments.call(lambda *inner: func(*inner, *samples), given)

    matrix = GaussNewton(flat, loss, leaves, data=data, strategy=strategy)
    if data and strategy in ("vectorize", "reverse-loop") and not matrix.has_independent_samples():
        raise ValueError(
            "ggn: the outputs of a sample by itself are not those of all samples together (as in "
            "batch normalization in training mode); pass the data within func, without data="
        )
    return GaussNewtonStream(matrix, chunk_size)


class GaussNewtonStream:
    """The rows of a generalized Gauss-Newton matrix, computed on demand.

    Attributes:
        matrix: The matrix.
        axis: Always ``rows``.
        rows: The layout of the rows; `columns` is the same.
        shape: The number of rows and columns.
        dtype: The dtype of the entries.
        chunk_size: The number of rows in a block.
    """

    axis = Axis.ROWS

    def __init__(self, matrix: GaussNewton, chunk_size: int | None) -> None:
        """Keep the matrix; None as the chunk size takes at most 64 MiB for a block."""
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size!r}: valid is an integer of at least 1")
        self.matrix = matrix
        self.rows = self.columns = matrix.layout
        self.shape = (matrix.layout.size, matrix.layout.size)
        self.dtype = matrix.dtype
        line = max(1, matrix.layout.size * matrix.dtype.itemsize)
        self.chunk_size = chunk_size or max(1, 64 * 2**20 // line)

    @property
    def fallbacks(self) -> dict[str, Any]:
        """The fallbacks so far, by their texts."""
        return self.matrix.fallbacks

    def __iter__(self) -> Iterator[Block]:
        """Yield all blocks in order."""
        for start in range(0, self.shape[0], self.chunk_size):
            yield self.block(start, min(start + self.chunk_size, self.shape[0]))

    def block(self, start: int, stop: int) -> Block:
        """Compute the rows start, ..., stop - 1."""
        if not 0 <= start < stop <= self.shape[0]:
            raise ValueError(f"block: rows {start} to {stop} are not within 0 to {self.shape[0]}")
        shape, device = (stop - start, self.shape[1]), self.matrix.outputs.device
        values = torch.zeros(shape, dtype=self.dtype, device=device)
        self.matrix.add_rows(torch.arange(start, stop, device=device), values)
        fallbacks = tuple(self.matrix.fallbacks.values())
        return Block(Axis.ROWS, start, stop, (values,), self.dtype, fallbacks)
