"""Check every entry of a block against products with random probe vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from autodiff_core import Axis, Block
from jobs.errors import JobError
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.streams.stream import Stream
from jobs.verification.numerics import (
    Probe,
    largest_difference,
    largest_line_error,
    multiplied,
    probes_for_the_file,
    typical_products,
    widened,
)
from outputs import Probes, verify_result


class ProbeCheck:
    """Compares every line of the matrix with its product with a random vector.

    Attributes:
        right: v and M v; None where no other route gives it.
        left: u and uᵀ M; likewise.
        tolerance: The largest error relative to |line| |vector| that passes.
        floor: The size below which products are rounding alone.
        notes: What is wrong with some route to the derivative, as sentences.
        by_differences: Whether differences of the function gave a product or a part of one.
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
        notes: Sequence[str] = (),
        by_differences: bool = False,
        is_curvature: bool = False,
        bounds: Sequence[int] | None = None,
    ) -> None:
        """Keep the probe that fits the axis of the blocks, and both for the file.

        Args:
            needed: The probe that fits the axis; its products are NaN where they are not known.
            right: v and M v.
            left: u and uᵀ M.
            tolerance: The largest relative error that passes.
            floor: The size below which products are rounding alone.
            is_product: Whether the matrix is of products with vectors.
            notes: What is wrong with some route to the derivative.
            by_differences: Whether differences of the function gave a product or a part of one.
            is_curvature: Whether the matrix is positive semidefinite where the loss is convex in
                the outputs, so that the record has its Rayleigh quotients.
            bounds: Where the rows of each of several matrices of different sizes begin, and where
                the last ones end; None for one matrix. What is small in all of one matrix must not
                hide behind another.
        """
        self.right = right
        self.left = left
        self.tolerance = tolerance
        self.floor = floor
        self.notes = tuple(notes)
        self.by_differences = by_differences
        self._probe = needed
        self._length = float(torch.linalg.vector_norm(widened(needed.vector)))
        self._is_product = is_product
        self._is_curvature = is_curvature
        self._bounds = bounds
        self._typical = typical_products(needed.product, bounds) + floor
        self._lines = 0
        self._without_product = 0
        self._largest = 0.0
        self._is_whole = False

    @property
    def _other(self) -> Probe | None:
        """The probe from the other side than the lines'; None where its product is not known."""
        sides = (self.right, self.left)
        return next((each for each in sides if each is not None and each is not self._probe), None)

    @property
    def shows_symmetry(self) -> bool:
        """Whether M v and v M are the same numbers to half of their digits.

        For a random v they are so, except with probability zero, only where M is symmetric: the
        check of Freivalds for M - Mᵀ.
        """
        if self.right is None or self.left is None or self._is_product or self.by_differences:
            return False
        (v, right), (u, left) = ((p.vector, p.product) for p in (self.right, self.left))
        if v.shape != u.shape or not torch.equal(v, u) or not bool(torch.isfinite(right).all()):
            return False
        # Not the tolerance of the option: columns of a Hessian that is not symmetric are no rows.
        half_of_the_digits = torch.finfo(right.dtype).eps ** 0.5
        return largest_difference(left, right) <= min(self.tolerance, half_of_the_digits)

    def of_rows(self) -> ProbeCheck:
        """Return the same check for blocks of rows.

        Raises:
            ValueError: There is no M v.
        """
        if self.right is None:
            raise ValueError("of_rows: no other route gives M v")
        return self._with(self.right, self.right, self.left)

    @classmethod
    def rehearsal(cls, job: Job, stream: Stream) -> ProbeCheck:
        """Return a check with zeros, which takes the time and the memory of a real one."""
        lines, across = stream.axis.lines(stream.shape), stream.axis.across(stream.shape)
        # Of a product with complex images only the real part counts.
        kind = {"dtype": stream.dtype.to_real(), "device": job.device}
        probe = Probe(widened(torch.ones(across, **kind)), widened(torch.zeros(lines, **kind)))
        return cls(
            probe, None, None, math.inf, 0.0, is_product=OPERATIONS[job.operation].is_product
        )

    def error(self, block: Block) -> float:
        """Return the largest error of a line relative to |line| |vector|."""
        values = widened(block.values if block.axis is Axis.ROWS else block.values.T)
        vector = self._probe.vector.to(values.dtype)
        product = multiplied(values, vector, is_product=self._is_product)
        expected = self._probe.product[block.start : block.stop].to(product.dtype)
        norms = torch.linalg.vector_norm(values, dim=1) * self._length
        typical = self._typical[block.start : block.stop].to(norms)
        return largest_line_error(product, expected, norms, typical)

    def record(self, start: int, stop: int, error: float) -> None:
        """Count a block that has passed."""
        product = self._probe.product[start:stop]
        self._lines += int(torch.isfinite(product).sum())
        self._without_product += int((~torch.isfinite(product)).sum())
        self._largest = max(self._largest, error)

    def on(self, device: torch.device) -> ProbeCheck:
        """Return the check for blocks on another device, without what only the file needs."""
        probe = Probe(self._probe.vector.to(device), self._probe.product.to(device))
        return self._with(probe, None, None)

    def _with(self, needed: Probe, right: Probe | None, left: Probe | None) -> ProbeCheck:
        return ProbeCheck(
            needed,
            right,
            left,
            self.tolerance,
            self.floor,
            is_product=self._is_product,
            notes=self.notes,
            by_differences=self.by_differences,
            is_curvature=self._is_curvature,
            bounds=self._bounds,
        )

    def complete(self, path: Path) -> None:
        """Check the whole matrix against the product from the other side, where that is known.

        A product from the other side needs every line: it checks all entries at once, those of
        lines without a product of their own too.

        Args:
            path: The file, in which every line is present.

        Raises:
            JobError: The matrix disagrees.
        """
        other = self._other
        is_needed = not bool(self._probe.product.isfinite().all())
        if not is_needed or other is None or not bool(other.product.isfinite().all()):
            return
        found = verify_result(path)
        error = found.right_error if other is self.right else found.left_error
        if error is None or found.corrupt or found.nonfinite:
            error = math.inf
        if error > self.tolerance:
            raise JobError(
                f"the matrix as a whole disagrees with an independent product by {error:.1e} "
                f"(tolerance {self.tolerance:.1e}); it is kept in {path}. {'. '.join(self.notes)}"
            )
        self._lines += self._without_product
        self._without_product = 0
        self._largest = max(self._largest, error)
        self._is_whole = True

    def figures(self) -> dict[str, Any]:
        """Return what the result file keeps."""
        return {
            "kind": "probe",
            "lines_checked": self._lines,
            "lines_without_finite_product": self._without_product,
            "largest_relative_error": self._largest,
            "tolerance": self.tolerance,
            "by_differences": self.by_differences,
            "as_a_whole": self._is_whole,
            "notes": list(self.notes),
        } | ({"smallest_rayleigh_quotient": self._rayleigh()} if self._is_curvature else {})

    def _rayleigh(self) -> float | None:
        """Return the smallest vᵀMv / vᵀv of the probes and matrices; None where there is none."""
        quotients: list[float] = []
        for probe in (self.right, self.left):
            if probe is None:
                continue
            vector, product = probe.vector.double(), probe.product.double()
            # Of many points of one size there is one vector for all of them.
            ends = self._bounds or (0, len(product))
            for start, stop in pairwise(ends):
                within = vector if self._bounds is None else vector[: stop - start]
                part = product[start:stop].reshape(-1, len(within))
                quotients += (part @ within / (within @ within)).tolist()
        return min(filter(math.isfinite, quotients), default=None)

    def probes(self) -> Probes | None:
        """Return both probes, as far as another route gives them."""
        return probes_for_the_file(
            self.right, self.left, self.tolerance, self.floor, is_product=self._is_product
        )
