"""Compressed derivatives: one product for each colour, from which the entries are read.

For a colouring of columns with the 0/1 matrix S of its classes, the products J S contain every
entry of J; for a colouring of rows, Sᵀ J does (A. R. Curtis, M. J. D. Powell, J. K. Reid, On the
estimation of sparse Jacobian matrices, IMA Journal of Applied Mathematics 13, 1974; M. J. D.
Powell, Ph. L. Toint, On the estimation of sparse Hessian matrices, SIAM Journal on Numerical
Analysis 16, 1979).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from autodiff_core._errors import MissingForwardDerivativeError
from autodiff_core._operations import OPERATIONS, Operation
from autodiff_core._stream import BlockStream, blocks
from autodiff_core.sparse._colouring.colouring import Colouring, colour
from autodiff_core.sparse._detection.detect import detect_sparsity
from autodiff_core.sparse._errors import PatternError
from autodiff_core.sparse._pattern import SparsityPattern
from autodiff_core.sparse._reuse import require_same_branches
from autodiff_core.sparse._values import value_of

Side = Literal["right", "left"]


def product_from(side: Side, operation: str) -> Operation:
    """Return the product operation that compresses a matrix from a side."""
    return OPERATIONS[operation].product_with("pushforward" if side == "right" else "pullback")


def sparse_jacobian(
    func: Callable[..., Any],
    inputs: Any,
    *,
    sparsity: SparsityPattern | Colouring | None = None,
    strategy: str = "auto",
    chunk_size: int | None = None,
) -> Tensor:
    """Return the Jacobian of a function as a sparse matrix, by one product for each colour.

    Args:
        func: Called with the tensors of a tuple of inputs as its arguments.
        inputs: A tensor, a tuple of arguments, or another nested structure of tensors; real, of
            one dtype and on one device.
        sparsity: The pattern or, better, the colouring of an earlier call; None detects it. If it
            holds values of its point (`SparsityPattern.frozen`), one more product checks that it
            is valid here.
        strategy: The strategy of the products: ``auto``, ``reverse-loop``, ``vectorize``,
            ``forward-mode`` or ``forward-loop``.
        chunk_size: How many products are computed at once; None chooses at most 64 and 64 MiB.

    Returns:
        A sparse CSR tensor of shape (rows, columns), numbered as by `detect_sparsity`, in the
        dtype of the derivative.

    Raises:
        TypeError: Inputs or outputs that are not tensors.
        PatternError: The sparsity has another shape, or is that of other branches.
        DetectionError: The pattern cannot be detected.
    """
    return _sparse("jacobian", func, inputs, sparsity, strategy, chunk_size)


def sparse_hessian(
    func: Callable[..., Any],
    inputs: Any,
    *,
    sparsity: SparsityPattern | Colouring | None = None,
    strategy: str = "auto",
    chunk_size: int | None = None,
) -> Tensor:
    """Return the Hessian of a scalar function as a sparse matrix; see `sparse_jacobian`.

    With a star colouring, the two entries (i, j) and (j, i) may be read from one number, and are
    then symmetric by construction.
    """
    return _sparse("hessian", func, inputs, sparsity, strategy, chunk_size)


def _sparse(
    operation: str,
    func: Callable[..., Any],
    inputs: Any,
    sparsity: SparsityPattern | Colouring | None,
    strategy: str,
    chunk_size: int | None,
) -> Tensor:
    is_known = sparsity is not None
    if sparsity is None:
        sparsity = detect_sparsity(func, inputs, operation=operation)
    if isinstance(sparsity, SparsityPattern):
        sparsity = colour(sparsity, symmetric=operation == "hessian" and sparsity.is_symmetric())
    streams = compressed_streams(
        sparsity, func, inputs, operation=operation, strategy=strategy, chunk_size=chunk_size
    )
    products = [stream.matrix() for stream in streams]
    pattern = sparsity.pattern
    device = tree_flatten(inputs)[0][0].device
    dtype = products[0].dtype if products else tree_flatten(inputs)[0][0].dtype
    flat = torch.cat([product.reshape(-1) for product in products] or [torch.zeros(0, dtype=dtype)])
    matrix = csr_tensor(
        torch.from_numpy(pattern.indptr).to(device),
        torch.from_numpy(pattern.indices.astype(np.int64)).to(device),
        flat[torch.from_numpy(sparsity.sources).to(flat.device)],
        pattern.shape,
    )
    if is_known:
        require_same_branches(matrix, pattern, func, inputs, operation)
    return matrix


def csr_tensor(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return a sparse CSR tensor from the index arrays of a valid pattern, unchecked."""
    # torch warns once that the support of sparse CSR tensors is in beta.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return torch.sparse_csr_tensor(indptr, indices, values, size=shape, check_invariants=False)


def compressed_streams(
    colouring: Colouring,
    func: Callable[..., Any],
    inputs: Any,
    *,
    operation: str,
    strategy: str = "auto",
    chunk_size: int | None = None,
) -> tuple[BlockStream, ...]:
    """Return the compressed products as streams of blocks, whose rows are the colours.

    Args:
        colouring: The colouring.
        func: The function.
        inputs: As for `sparse_jacobian`.
        operation: ``jacobian`` or ``hessian``.
        strategy: As for `sparse_jacobian`.
        chunk_size: How many products are computed at once.

    Returns:
        The products from the right, of shape (colours, rows), if there are any, and then those
        from the left, of shape (colours, columns). `Colouring.sources` numbers their entries in
        this order.

    Raises:
        PatternError: The colouring has another shape.
    """
    found = []
    for side, _ in sides(colouring):
        product = product_from(side, operation)
        like = value_of(func, inputs) if product.multiplies_outputs else inputs
        leaves, structure = tree_flatten(like)
        vectors = tree_unflatten(seeds_from(side, colouring, leaves), structure)
        stream = _stream(func, inputs, product, strategy, vectors, chunk_size)
        across = colouring.pattern.shape[0 if side == "right" else 1]
        if stream.shape[1] != across:
            raise PatternError(
                f"the pattern has {colouring.pattern.shape[0]} rows and "
                f"{colouring.pattern.shape[1]} columns, and a {product.name} has {stream.shape[1]} "
                "elements"
            )
        found.append(stream)
    return tuple(found)


def sides(colouring: Colouring) -> list[tuple[Side, int]]:
    """Return the sides from which a colouring needs products, and how many."""
    counts: list[tuple[Side, int]] = [("right", colouring.columns), ("left", colouring.rows)]
    return [(side, count) for side, count in counts if count]


def seeds_from(side: Side, colouring: Colouring, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the seeds of the products from a side; see `seeds`."""
    colours = colouring.column_colours if side == "right" else colouring.row_colours
    assert colours is not None
    return seeds(colours, colouring.columns if side == "right" else colouring.rows, like)


def seeds(colours: NDArray[np.int32], count: int, like: Sequence[Tensor]) -> list[Tensor]:
    """Return a vector for each colour: one at the elements of that colour, else zero.

    Args:
        colours: The colour of each element of the concatenated tensors; -1 for none.
        count: The number of colours.
        like: The tensors.

    Returns:
        For each tensor one of shape (count, *shape).

    Raises:
        PatternError: The number of elements is not that of the colours.
    """
    total = sum(tensor.numel() for tensor in like)
    if total != len(colours):
        raise PatternError(f"the colouring is of {len(colours)} elements, and there are {total}")
    stacked, start = [], 0
    for tensor in like:
        own = torch.from_numpy(colours[start : start + tensor.numel()].astype(np.int64))
        vectors = torch.zeros((count, tensor.numel()), dtype=tensor.dtype, device=tensor.device)
        places = torch.nonzero(own >= 0).squeeze(1)
        vectors[own[places].to(tensor.device), places.to(tensor.device)] = 1
        stacked.append(vectors.reshape(count, *tensor.shape))
        start += tensor.numel()
    return stacked


def decompressed(
    colouring: Colouring, compressed: Sequence[NDArray[Any]], entries: slice = slice(None)
) -> NDArray[Any]:
    """Return the entries of the pattern, or some of them, read from the compressed products.

    Args:
        colouring: The colouring.
        compressed: The products from the right, of shape (colours, rows), if there are any, and
            those from the left, of shape (colours, columns), in C order.
        entries: The entries to read, in the order of the pattern; those of a range of rows are
            ``indptr[start]`` to ``indptr[stop]``.
    """
    sources = colouring.sources[entries]
    flat = [np.asarray(product).reshape(-1) for product in compressed]
    if not flat:
        return np.zeros(len(sources))
    if len(flat) == 1:
        return flat[0].take(sources)
    first = len(flat[0])
    values = np.empty(len(sources), np.result_type(*flat))
    is_first = sources < first
    values[is_first] = flat[0][sources[is_first]]
    values[~is_first] = flat[1][sources[~is_first] - first]
    return values


def _stream(
    func: Callable[..., Any],
    inputs: Any,
    product: Operation,
    strategy: str,
    vectors: Any,
    chunk_size: int | None,
) -> BlockStream:
    def stream(strategy: str) -> BlockStream:
        # Capturing a program costs more than a few products do.
        return blocks(
            func,
            inputs,
            operation=product.name,
            strategy=strategy,
            vectors=vectors,
            chunk_size=chunk_size,
            engine="plain",
        )

    if strategy != "auto":
        return stream(strategy)
    if product.product == "pushforward":
        try:
            return stream("forward-mode")
        except MissingForwardDerivativeError:
            pass
    return stream("vectorize")
