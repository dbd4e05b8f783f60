"""The numerics of verification: sizes, tolerances, and errors of products with probe vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.functions.returned_values import leaves_of
from jobs.job import Job
from jobs.operations import OPERATIONS
from outputs import Probes


@dataclass(frozen=True)
class Probe:
    """A random vector and its product with the matrix.

    Attributes:
        vector: Shape (columns,) for a product from the right, (rows,) for one from the left.
        product: Shape (rows,) or (columns,).
    """

    vector: Tensor
    product: Tensor


def rounding_floor(job: Job, returned: Any, probe: Probe, tolerance: float) -> float:
    """Return the size below which products are rounding alone.

    The tolerance √ε relative to it is 16 ε relative to the product of the vectors' lengths with
    |f| / |x|, of second order |f| / |x|².

    Args:
        job: The job, with the point and its vectors.
        returned: What the function returns at the point.
        probe: The probe that blocks are compared with.
        tolerance: The largest relative error that passes.
    """
    value = root_mean_square(
        [y for y in leaves_of(returned) if y.is_floating_point() or y.is_complex()]
    )
    point = root_mean_square(list(job.point.values())) or 1.0
    entry = value / point
    if OPERATIONS[job.operation].is_second_order:
        entry /= point
    vectors = root_mean_square(list(job.vectors.values())) if job.vectors else 1.0
    if job.drawn is not None:
        vectors = abs(job.drawn.scale)
    length = float(widened(probe.vector).abs().square().sum().sqrt())
    floor = 16 * tolerance * entry * vectors * length
    # Where it overflows nothing is taken for rounding: a floor of infinity would let all pass.
    return floor if math.isfinite(floor) else 0.0


def root_mean_square(tensors: Sequence[Tensor]) -> float:
    """Return the root of the mean square of all finite entries; 0 where there are none."""
    flat = [widened(tensor.detach()).abs().reshape(-1).cpu() for tensor in tensors]
    entries = torch.cat([part.double() for part in flat]) if flat else torch.zeros(0)
    entries = entries[torch.isfinite(entries)]
    largest = float(entries.max()) if entries.numel() else 0.0
    # Squares of large or small numbers would not be representable.
    return largest * float((entries / largest).square().mean().sqrt()) if largest else 0.0


def typical_products(products: Tensor, bounds: Sequence[int] | None) -> Tensor:
    """Return the typical size of a product, for each row of several matrices that of its own.

    Args:
        products: Shape (rows,).
        bounds: Where the rows of each matrix begin, and where the last ones end; None for one.

    Returns:
        Float64 of shape (rows,).
    """
    sizes = torch.zeros(len(products), dtype=torch.float64, device=products.device)
    for start, stop in pairwise(bounds or (0, len(products))):
        sizes[start:stop] = root_mean_square([products[start:stop]])
    return sizes


def signed_vector(like: Tensor, generator: torch.Generator, *, real: bool) -> Tensor:
    """Draw a random vector in the shape, dtype and place of a tensor.

    Args:
        like: The tensor.
        generator: The generator, of the CPU.
        real: Whether the imaginary part of a complex vector is zero.

    Returns:
        Magnitudes from 1/2 to 3/2 with random signs: no entry hides behind a small one.
    """

    def drawn() -> Tensor:
        shape = tuple(like.shape)
        magnitudes = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
        signs = torch.sign(torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5)
        return magnitudes * signs

    vector = drawn()
    if like.is_complex() and not real:
        vector = torch.complex(vector, drawn())
    return vector.to(like.device, like.dtype)


def multiplied(values: Tensor, vector: Tensor, *, is_product: bool) -> Tensor:
    """Return rows times a vector; for products the real scalar product, which adjoints keep."""
    if is_product and values.is_complex():
        return (values.conj() @ vector).real
    return values @ vector


def line_errors(
    product: Tensor, expected: Tensor, norms: Tensor, typical: float | Tensor
) -> Tensor:
    """Return the relative error of the product of each line with a probe vector.

    The error is relative to |line| |vector|, to the expected product, and to the typical product,
    which counts where a line cancels to almost nothing.

    Args:
        product: What the lines give, shape (lines,).
        expected: What another route gives, shape (lines,).
        norms: |line| |vector|, shape (lines,).
        typical: The size of a typical product, of all lines or of each, shape (lines,).

    Returns:
        Shape (lines,): NaN where the expected product is not finite, so that nothing can be said
        of the line; infinity where only the line's product is not finite.
    """
    error = (product - expected).abs()
    # A length whose square overflows would let every error pass.
    norms = torch.where(torch.isfinite(norms), norms, 0)
    relative = torch.where(error > 0, error / (norms + expected.abs() + typical), error)
    relative = torch.where(torch.isfinite(relative), relative, math.inf)
    return torch.where(torch.isfinite(expected), relative, math.nan)


def largest_line_error(
    product: Tensor, expected: Tensor, norms: Tensor, typical: float | Tensor
) -> float:
    """Return the largest of the `line_errors`; 0 where no line has a finite expected product."""
    # Almost always everything is finite and no scale is zero: then one pass suffices.
    largest = float(((product - expected).abs() / (norms + expected.abs() + typical)).max())
    if math.isfinite(largest) and bool(torch.isfinite(norms).all()):
        return largest
    errors = line_errors(product, expected, norms, typical)
    checked = errors[~torch.isnan(errors)]
    return float(checked.max()) if checked.numel() else 0.0


def largest_difference(given: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two tensors relative to the largest entry of either.

    Entries that are not finite in the expected tensor are left out; the difference is infinite
    where only the given entry is not finite.

    Args:
        given: Any shape.
        expected: The same shape; compared on the device and in the dtype of the given one.
    """
    given, expected = widened(given), widened(expected.to(given.device, given.dtype))
    finite = torch.isfinite(expected)
    if not bool(finite.any()):
        return 0.0
    if not bool(torch.isfinite(given[finite]).all()):
        return math.inf
    difference = (given - expected)[finite].abs().max()
    size = torch.maximum(given[finite].abs().max(), expected[finite].abs().max())
    return float(difference / size) if difference > 0 else 0.0


def flattened(tensors: Sequence[Tensor]) -> Tensor:
    """Return the entries of all tensors as one vector."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def widened(tensor: Tensor) -> Tensor:
    """Return a tensor in the dtype of its scalar products: half as single, integers as double."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    return tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.double()


def in_double_precision(tensor: Tensor) -> np.ndarray:
    """Return a tensor on the host, as float64 or complex128."""
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return wide.resolve_conj().cpu().numpy()


def probes_for_the_file(
    right: Probe | None,
    left: Probe | None,
    tolerance: float,
    floor: float,
    *,
    is_product: bool = False,
) -> Probes:
    """Return both probes as the result file keeps them, so that it can be verified by itself.

    Args:
        right: v and M v; None where no other route gives it.
        left: u and uᵀ M; likewise.
        tolerance: The largest relative error that passes.
        floor: The size below which products are rounding alone.
        is_product: Whether the matrix is of products, paired by the real scalar product.
    """
    return Probes(
        right=None if right is None else in_double_precision(right.vector),
        right_product=None if right is None else in_double_precision(right.product),
        left=None if left is None else in_double_precision(left.vector),
        left_product=None if left is None else in_double_precision(left.product),
        tolerance=tolerance,
        pairing="real inner product" if is_product else "bilinear",
        floor=floor,
    )
