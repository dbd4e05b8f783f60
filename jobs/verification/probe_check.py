"""Check every entry of a block against products with random probe vectors."""

from __future__ import annotations

import math
from typing import Any

import torch

from autodiff_core import Axis, Block
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.streams.stream import Stream
from jobs.verification.numerics import (
    Probe,
    _wide,
    in_double_precision,
    largest_difference,
    project,
)
from outputs import Probes


class ProbeCheck:
    """Every line of the matrix is held against a product with a random vector.

    Attributes:
        right: v and M v; None where no other route gives it.
        left: u and uᵀ M; likewise.
        tolerance: The largest error relative to |line| |vector| that passes.
        floor: The size of products of which rounding alone is left.
    """

    def __init__(
        self,
        needed: Probe,
        right: Probe | None,
        left: Probe | None,
        tolerance: float,
        floor: float,
        *,
        is_product: bool,
    ) -> None:
        """Take the probe that fits the axis of the blocks, and both for the file."""
        self.right = right
        self.left = left
        self.tolerance = tolerance
        self.floor = floor
        self._probe = needed
        self._length = float(torch.linalg.vector_norm(_wide(needed.vector)))
        self._is_product = is_product
        product = _wide(needed.product).abs()
        finite = product[torch.isfinite(product)]
        self._typical = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
        self._typical += floor
        self._lines = 0
        self._without_product = 0
        self._largest = 0.0

    @property
    def shows_symmetry(self) -> bool:
        """Whether M v and v M are the same numbers to half of their digits.

        For a random v they are so, but with probability zero, only where M is symmetric: the
        check of Freivalds for M - Mᵀ.
        """
        if self.right is None or self.left is None or self._is_product:
            return False
        (v, right), (u, left) = ((p.vector, p.product) for p in (self.right, self.left))
        if v.shape != u.shape or not torch.equal(v, u) or not bool(torch.isfinite(right).all()):
            return False
        return largest_difference(left, right) <= self.tolerance

    def of_rows(self) -> ProbeCheck:
        """The same for blocks of rows.

        Raises:
            ValueError: There is no M v.
        """
        if self.right is None:
            raise ValueError("of_rows: no other route gives M v")
        return ProbeCheck(
            self.right,
            self.right,
            self.left,
            self.tolerance,
            self.floor,
            is_product=self._is_product,
        )

    @classmethod
    def rehearsal(cls, job: Job, stream: Stream) -> ProbeCheck:
        """A check against nothing, that takes the time and the memory of a real one."""
        lines, across = stream.axis.lines(stream.shape), stream.axis.across(stream.shape)
        # Of a product with complex images only the real part counts.
        kind = {"dtype": stream.dtype.to_real(), "device": job.device}
        probe = Probe(_wide(torch.ones(across, **kind)), _wide(torch.zeros(lines, **kind)))
        return cls(
            probe, None, None, math.inf, 0.0, is_product=OPERATIONS[job.operation].is_product
        )

    def error(self, block: Block) -> float:
        """The largest error of a line relative to |line| |vector|."""
        values = _wide(block.values if block.axis is Axis.ROWS else block.values.T)
        vector = self._probe.vector.to(values.dtype)
        given = project(values, vector, is_product=self._is_product)
        expected = self._probe.product[block.start : block.stop].to(given.dtype)
        size = torch.linalg.vector_norm(values, dim=1) * self._length
        # Almost always everything is finite, and the scale is no zero: that is seen at the end.
        scale = size + expected.abs() + self._typical
        largest = float(((given - expected).abs() / scale).max())
        if math.isfinite(largest):
            return largest
        finite = torch.isfinite(expected)
        # A line that is not finite although its product is has no honest error.
        if not bool(torch.isfinite(given[finite]).all()):
            return float("inf")
        error, scale = (given - expected).abs()[finite], scale[finite]
        if not bool((error > 0).any()):
            return 0.0
        return float((error / scale)[error > 0].max())

    def record(self, start: int, stop: int, error: float) -> None:
        """Count a block that has passed."""
        product = self._probe.product[start:stop]
        self._lines += int(torch.isfinite(product).sum())
        self._without_product += int((~torch.isfinite(product)).sum())
        self._largest = max(self._largest, error)

    def on(self, device: torch.device) -> ProbeCheck:
        """The same for blocks on another device; without the probes that only the file needs."""
        probe = Probe(self._probe.vector.to(device), self._probe.product.to(device))
        return ProbeCheck(
            probe, None, None, self.tolerance, self.floor, is_product=self._is_product
        )

    def figures(self) -> dict[str, Any]:
        """What the result file keeps."""
        return {
            "kind": "probe",
            "lines_checked": self._lines,
            "lines_without_finite_product": self._without_product,
            "largest_relative_error": self._largest,
            "tolerance": self.tolerance,
        }

    def probes(self) -> Probes | None:
        """Both probes, as far as another route gives them."""
        right, left = self.right, self.left
        return Probes(
            right=None if right is None else in_double_precision(right.vector),
            right_product=None if right is None else in_double_precision(right.product),
            left=None if left is None else in_double_precision(left.vector),
            left_product=None if left is None else in_double_precision(left.product),
            tolerance=self.tolerance,
            pairing="real inner product" if self._is_product else "bilinear",
            floor=self.floor,
        )

    def __str__(self) -> str:
        """How many lines passed, and how well."""
        return (
            f"{self._lines} lines agree with an independent product, largest relative error "
            f"{self._largest:.1e} (tolerance {self.tolerance:.1e})"
            + (
                f"; {self._without_product} lines have no finite one"
                if self._without_product
                else ""
            )
        )
