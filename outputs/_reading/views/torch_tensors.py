"""The nesting of tensors that ``torch.autograd.functional`` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from outputs._format.axes import TensorSpec
from outputs._format.description import PRODUCTS

if TYPE_CHECKING:
    import torch

    from outputs._reading.result import Result


def nested_tensors(result: Result) -> Any:
    """The result's matrix as tensors, nested by its tuples.

    Args:
        result: An open result.

    Returns:
        For a matrix a tensor for each (row tensor, column tensor), for a product a tensor for
        each column tensor.
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


def _product(result: Result) -> tuple[torch.Tensor, ...]:
    (vectors,) = result.rows
    products = tuple(_tensor(result, vectors, column) for column in result.columns)
    return tuple(p.squeeze(0) for p in products) if vectors.size == 1 else products


def _unless_single(is_tuple: bool, tensors: tuple[Any, ...]) -> Any:
    return tensors if is_tuple else tensors[0]


def _tensor(result: Result, row: TensorSpec, column: TensorSpec) -> torch.Tensor:
    import torch  # the readers of a file need not have torch

    values = torch.from_numpy(np.asarray(result.block(row.name, column.name), order="C"))
    dtype: torch.dtype = getattr(torch, column.dtype)
    own: torch.dtype = getattr(torch, row.dtype)
    if not values.is_complex() or dtype.is_complex:
        return values.to(dtype)
    # The derivative of a complex output by a real input is complex; that of a real output is
    # real, and is stored as complex only because another tensor needs it.
    return values.to(dtype.to_complex()) if own.is_complex else values.real.to(dtype)
