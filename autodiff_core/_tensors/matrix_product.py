"""Matrix products by the fastest library that torch includes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autodiff_core._tensors.thresholds import reaches

MANY_TERMS = 2**21
"""From this many multiplications on, the overhead of a call of oneDNN, some 10 µs, is small."""


def matrix_product(rows: Tensor, matrix: Tensor) -> Tensor:
    """Return the product of all rows of a tensor with a matrix, without autograd history.

    MKL, which `torch.mm` calls, reaches 209 GFLOP/s on two cores of an AMD EPYC, and oneDNN, which
    torch calls for layers in inference, 419 to 487 (measured). The choice depends on dtype, device
    and shapes alone, so that every process computes the same numbers.

    Args:
        rows: Shape (..., k).
        matrix: Shape (k, m).

    Returns:
        Shape (..., m).
    """
    if _is_for_onednn(rows, matrix):
        # oneDNN is a thousand times slower for a matrix with gaps between its lines.
        if not (matrix.is_contiguous() or matrix.mT.is_contiguous()):
            matrix = matrix.contiguous()
        # Compute one product for all leading dimensions instead of many. Their order does not
        # matter; in the order of memory no copy is needed.
        order = sorted(range(rows.dim() - 1), key=rows.stride, reverse=True)
        ordered = rows.permute(*order, -1)
        flat = ordered.reshape(-1, rows.shape[-1])
        product = _linear()(flat, matrix.mT, None, "none", [], "")
        product = product.reshape(*ordered.shape[:-1], matrix.shape[-1])
        return product.permute(*(order.index(dim) for dim in range(len(order))), -1)
    return torch.matmul(rows, matrix)


def has_fast_product(tensor: Tensor) -> bool:
    """Return whether oneDNN computes large products of matrices like this one."""
    return (
        tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
    )


def _is_for_onednn(rows: Tensor, matrix: Tensor) -> bool:
    is_fast = has_fast_product(rows) and has_fast_product(matrix)
    return is_fast and reaches(rows.numel() * matrix.shape[1], MANY_TERMS)


def _linear() -> Any:
    return torch.ops.mkldnn._linear_pointwise.default


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the plain product in place of the oneDNN operator, which compilers can fuse."""
    if not torch.backends.mkldnn.is_available():
        return {}
    return {_linear(): lambda rows, weight, *_: rows @ weight.mT}
