"""Check a sparse matrix at a point whose branches may be others than those of its pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from autodiff_core._operations import OPERATIONS
from autodiff_core._stream import blocks
from autodiff_core.sparse._errors import PatternError
from autodiff_core.sparse._pattern import SparsityPattern
from autodiff_core.sparse._values import value_of


def require_same_branches(
    matrix: Tensor,
    pattern: SparsityPattern,
    func: Callable[..., Any],
    inputs: Any,
    operation: str,
) -> None:
    """Compare a matrix with one product with the derivative of the function.

    A pattern that holds nothing of a point is not checked: it is that of all points.

    Args:
        matrix: The matrix, sparse CSR, of shape (rows, columns).
        pattern: Its pattern.
        func: The function.
        inputs: The point.
        operation: ``jacobian`` or ``hessian``.

    Raises:
        PatternError: They disagree, as where an entry is missing.
    """
    if not pattern.frozen or 0 in pattern.shape:
        return
    product = OPERATIONS[operation].product_with("pullback")
    like = value_of(func, inputs) if product.multiplies_outputs else inputs
    leaves, structure = tree_flatten(like)
    generator = torch.Generator().manual_seed(11)
    random = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in leaves]
    vectors = [each[None].to(leaf) for each, leaf in zip(random, leaves, strict=True)]
    stream = blocks(
        func,
        inputs,
        operation=product.name,
        strategy="reverse-loop",
        vectors=tree_unflatten(vectors, structure),
    )
    expected = stream.matrix()[0].to("cpu", torch.float64)
    data = matrix.values().to("cpu", torch.float64)
    rows = torch.repeat_interleave(matrix.crow_indices().cpu().diff())
    parts = torch.cat([each.reshape(-1) for each in random])[rows] * data
    columns = matrix.col_indices().cpu()
    found = torch.zeros_like(expected).index_add(0, columns, parts)
    scale = torch.zeros_like(expected).index_add(0, columns, parts.abs())
    is_finite = expected.isfinite()
    typical = expected[is_finite].square().mean().sqrt() if bool(is_finite.any()) else 0.0
    tolerance = torch.finfo(matrix.dtype).eps ** 0.5
    is_wrong = is_finite & ~((found - expected).abs() <= tolerance * (scale + typical))
    if bool(is_wrong.any()):
        held = "; ".join(pattern.frozen[:3])
        raise PatternError(
            f"{int(is_wrong.sum())} columns of the matrix, such as {int(is_wrong.nonzero()[0])}, "
            "disagree with a product with the derivative: the pattern holds values of another "
            f"point ({held}). Detect it again here, or with local=False, which includes both "
            "sides of conditions"
        )
