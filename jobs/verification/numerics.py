"""The numerics of verification: sizes, tolerances and relative errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.functions.returned_values import leaves_of
from jobs.job import Job
from jobs.operations import OPERATIONS


def rounding_floor(job: Job, returned: Any, probe: Probe, tolerance: float) -> float:
    """The size of products of which rounding alone is left, so that √ε of it is 16 ε of theirs."""
    value = _size([leaf for leaf in leaves_of(returned) if torch.is_floating_point(leaf)])
    point = _size(list(job.point.values())) or 1.0
    entry = value / point ** (2 if OPERATIONS[job.operation].is_second_order else 1)
    vectors = _size(list(job.vectors.values())) if job.vectors else 1.0
    return 16 * tolerance * entry * vectors * float(_wide(probe.vector).abs().square().sum().sqrt())


def _size(tensors: Sequence[Tensor]) -> float:
    """The root of the mean square of all finite entries; 0 where there are none."""
    flat = [_wide(tensor.detach()).abs().reshape(-1).cpu() for tensor in tensors]
    entries = torch.cat([part.double() for part in flat]) if flat else torch.zeros(0)
    entries = entries[torch.isfinite(entries)]
    return float(entries.square().mean().sqrt()) if entries.numel() else 0.0


@dataclass(frozen=True)
class Probe:
    """A random vector and its product with the matrix.

    Attributes:
        vector: Shape (columns,) for a product from the right, (rows,) for one from the left.
        product: Shape (rows,) or (columns,).
    """

    vector: Tensor
    product: Tensor


def project(values: Tensor, vector: Tensor, *, is_product: bool) -> Tensor:
    """Rows times a vector; for products the real scalar product, which is what adjoints keep."""
    if is_product and values.is_complex():
        return (values.conj() @ vector).real
    return values @ vector


def largest_difference(given: Tensor, expected: Tensor) -> float:
    given, expected = _wide(given), _wide(expected.to(given.device, given.dtype))
    finite = torch.isfinite(expected)
    if not bool(finite.any()):
        return 0.0
    if not bool(torch.isfinite(given[finite]).all()):
        return float("inf")
    difference = (given - expected)[finite].abs().max()
    size = torch.maximum(given[finite].abs().max(), expected[finite].abs().max())
    return float(difference / size) if difference > 0 else 0.0


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _wide(tensor: Tensor) -> Tensor:
    """Scalar products of half precision are taken in single, those of integers in double."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    return tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.double()


def in_double_precision(tensor: Tensor) -> np.ndarray:
    """In double precision, whatever it was computed in."""
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return wide.resolve_conj().cpu().numpy()
