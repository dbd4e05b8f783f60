"""Build the nested tuples of tensors that ``torch.autograd.functional`` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from outputs._format.axes import TensorSpec
from outputs._format.description import PRODUCTS
from outputs._reading.views.protocol import DenseResult

if TYPE_CHECKING:
    import torch


def nested_tensors(result: DenseResult) -> Any:
    """Return the result's matrix as tensors, nested as the function's inputs and outputs were.

    Args:
        result: An open result.

    Returns:
        For a matrix one tensor for each (row tensor, column tensor), for a product one tensor
        for each column tensor.
    """
    if result.operation in PRODUCTS:
        return _unless_single(result.columns_are_tuple, _product(result))
    matrix = tuple(
        _unless_single(
            result.columns_are_tuple,
            tuple(_tensor(result, row, column) for column in result.columns),
        )
        for row in result.rows
    )
    return _unless_single(result.rows_are_tuple, matrix)


def _product(result: DenseResult) -> tuple[torch.Tensor, ...]:
    (vectors,) = result.rows
    products = tuple(_tensor(result, vectors, column) for column in result.columns)
    return tuple(p.squeeze(0) for p in products) if vectors.size == 1 else products


def _unless_single(is_tuple: bool, tensors: tuple[Any, ...]) -> Any:
    return tensors if is_tuple else tensors[0]


def _tensor(result: DenseResult, row: TensorSpec, column: TensorSpec) -> torch.Tensor:
    import torch  # imported here because reading a file must not require torch

    values = torch.from_numpy(np.asarray(result.block(row.name, column.name), order="C"))
    dtype: torch.dtype = getattr(torch, column.dtype)
    row_dtype: torch.dtype = getattr(torch, row.dtype)
    if not values.is_complex() or dtype.is_complex:
        return values.to(dtype)
    # The derivative of a complex output by a real input is complex; that of a real output is
    # real, and is stored as complex only because another tensor needs it.
    return values.to(dtype.to_complex()) if row_dtype.is_complex else values.real.to(dtype)
