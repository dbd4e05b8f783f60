"""Probe vectors and the reference products stored with a result."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import Axis, Shard
from outputs._format.validation import require_choice

Pairing = Literal["bilinear", "real inner product"]


@dataclass(frozen=True, eq=False)
class Probes:
    """Vectors and their products with the matrix M, computed by another route than its blocks.

    Attributes:
        right: The right probe, of shape (columns,), float or complex; None without
            ``right_product``.
        right_product: The product of M with ``right``, of shape (rows,).
        left: The left probe, of shape (rows,), float or complex; None without ``left_product``.
        left_product: The product of ``left`` with M, of shape (columns,).
        tolerance: The largest error of a product's entry that rounding explains, relative to the
            sum of |line| |vector|, the entry itself and the typical entry.
        pairing: ``bilinear``: ``M @ right`` and ``left @ M``; ``real inner product``:
            ``(M.conj() @ right).real`` and ``(left.conj() @ M).real``.
        floor: Added to the scale of a product's error: the size of products that remain from
            rounding alone, as where a derivative is zero by cancellation.

    Raises:
        ResultError: If a vector comes without its product, or is not a vector of floating-point
            or complex numbers.
    """

    right: np.ndarray | None
    right_product: np.ndarray | None
    left: np.ndarray | None
    left_product: np.ndarray | None
    tolerance: float
    pairing: Pairing = "bilinear"
    floor: float = 0.0

    def __post_init__(self) -> None:
        require_choice("pairing", self.pairing, get_args(Pairing))
        if not 0 <= self.tolerance < math.inf:
            raise ResultError(f"A tolerance is finite and not negative, not {self.tolerance}.")
        if not 0 <= self.floor < math.inf:
            raise ResultError(f"A floor is finite and not negative, not {self.floor}.")
        for side in ("right", "left"):
            vector, product = getattr(self, side), getattr(self, f"{side}_product")
            if (vector is None) != (product is None):
                raise ResultError(f"The {side} probe and its product come together or not at all.")
        for name, array in self.arrays().items():
            if array.ndim != 1 or array.dtype.kind not in "fc":
                raise ResultError(
                    f"The probe {name} is a vector of floating-point or complex numbers, not "
                    f"{array.dtype} of shape {array.shape}."
                )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the vectors and products that are not None, by name."""
        names = ("right", "right_product", "left", "left_product")
        return {name: a for name in names if (a := getattr(self, name)) is not None}

    def of_shard(self, axis: Axis, shard: Shard) -> Probes:
        """Return the probe against which the lines of a shard can be checked.

        The other probe's products are sums over all shards.

        Args:
            axis: The axis along which the matrix is divided.
            shard: The part.
        """
        lines = slice(shard.start, shard.stop)
        if axis == Axis.ROWS:
            product = None if self.right_product is None else self.right_product[lines]
            return replace(self, right_product=product, left=None, left_product=None)
        product = None if self.left_product is None else self.left_product[lines]
        return replace(self, left_product=product, right=None, right_product=None)


def require_fitting(probes: Probes, shape: tuple[int, int]) -> None:
    """Check that probes have the lengths of a matrix's axes.

    Raises:
        ResultError: If one has another length.
    """
    rows, columns = shape
    lengths = {"right": columns, "right_product": rows, "left": rows, "left_product": columns}
    for name, array in probes.arrays().items():
        if len(array) != lengths[name]:
            raise ResultError(
                f"The probe {name} has {len(array)} entries; a matrix of {rows} x {columns} needs "
                f"{lengths[name]}."
            )
