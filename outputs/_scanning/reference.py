"""Compare what was written before with what the function gives now."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from outputs._format.axes import Axis, Shard
from outputs._format.names import Names
from outputs._format.probes import Probes
from outputs._format.reading import read_arrays, read_probes
from outputs._scanning.relative_errors import relative_errors


@dataclass(frozen=True, eq=False)
class Reference:
    """What a function gives now.

    Attributes:
        value: The value of the function at the point, by name.
        probes: Random vectors and the products of the derivative with them; None without.
        tolerance: The largest relative error that rounding explains.
        finite: Whether a line that is not finite differs from a finite product.
        of_lines: Whether the lines of the file are those that the products are of. Those of a
            diagonal are not: only the products are compared.
    """

    value: Mapping[str, np.ndarray]
    probes: Probes | None
    tolerance: float
    finite: bool = True
    of_lines: bool = True

    def difference(self, file: h5py.File) -> str:
        """Return what differs in the value and the products of a file, in words; empty if nothing.

        The products are compared where they are those of the same vectors.

        Args:
            file: A result, finished or not, of the same job.
        """
        stored = read_arrays(file, Names.VALUE)
        if list(stored) != list(self.value):
            return f"the function gives {_listed(self.value)} and gave {_listed(stored)}"
        for name, now in self.value.items():
            if what := self._of_value(f"the value {name}".rstrip(), np.asarray(now), stored[name]):
                return what
        before = read_probes(file)
        if before is None or self.probes is None:
            return ""
        for side in ("right", "left"):
            if what := self._of_products(side, before, self.probes):
                return what
        return ""

    def _of_value(self, name: str, now: np.ndarray, before: np.ndarray) -> str:
        if now.shape != before.shape:
            return f"{name} has the shape {now.shape} and had {before.shape}"
        finite = np.isfinite(before)
        if not np.array_equal(finite, np.isfinite(now)):
            return f"{name} is finite elsewhere than before"
        now, before = now[finite], before[finite]
        # Of booleans there is no difference.
        wide = np.result_type(now, before, np.float64)
        errors = np.abs(now.astype(wide) - before.astype(wide))
        size = max(np.abs(array.astype(wide)).max(initial=0.0) for array in (now, before))
        worst = int(errors.argmax()) if errors.size else 0
        if not errors.size or not errors[worst] > self.tolerance * size:
            return ""
        return f"{name} is {now[worst]:.6g} and was {before[worst]:.6g}"

    def _of_products(self, side: str, before: Probes, now: Probes) -> str:
        vector, product = getattr(before, side), getattr(before, f"{side}_product")
        vector_now, product_now = getattr(now, side), getattr(now, f"{side}_product")
        if vector is None or vector_now is None or not np.array_equal(vector, vector_now):
            return ""
        errors = relative_errors(
            product_now, product, np.zeros(len(product)), vector, max(before.floor, now.floor)
        )
        tolerance = max(self.tolerance, now.tolerance)
        wrong = int(np.count_nonzero(errors > tolerance))
        if not wrong:
            return ""
        return (
            f"{wrong} of {len(errors)} entries of its product with a random vector differ by up to "
            f"{np.nanmax(errors):.1e}"
        )

    def line_probe(self, axis: Axis, shard: Shard | None) -> LineProbe | None:
        """Return the product with which the lines of a file are compared; None without one.

        Args:
            axis: The axis of the lines.
            shard: The lines that the file holds; None for all.
        """
        if self.probes is None or not self.of_lines:
            return None
        probes = self.probes if shard is None else self.probes.of_shard(axis, shard)
        is_rows = axis == Axis.ROWS
        vector = probes.right if is_rows else probes.left
        product = probes.right_product if is_rows else probes.left_product
        if vector is None or product is None:
            return None
        is_real = probes.pairing == "real inner product"
        tolerance = max(self.tolerance, probes.tolerance)
        return LineProbe(vector, product, tolerance, probes.floor, is_real, self.finite)


@dataclass(frozen=True, eq=False)
class LineProbe:
    """A random vector and the product with each line of a file.

    Attributes:
        vector: Shape (across,).
        product: Shape (lines,).
        tolerance: The largest relative error.
        floor: As of `Probes`.
        is_real: Whether only the real part of the scalar product of complex vectors counts.
        finite: As of `Reference`.
    """

    vector: np.ndarray
    product: np.ndarray
    tolerance: float
    floor: float
    is_real: bool
    finite: bool

    def multiplied(self, lines: np.ndarray, across: slice) -> np.ndarray:
        """Return the products of parts of lines, of shape (lines, part), with the vector."""
        is_complex = "c" in (lines.dtype.kind, self.vector.dtype.kind)
        kind = np.complex128 if is_complex else np.float64
        values = lines.astype(kind, copy=False)
        vector = self.vector[across].astype(kind, copy=False)
        with np.errstate(all="ignore"):
            # Several threads multiply, and those of a BLAS would wait for one another: it took six
            # times the time of the processor (measured).
            if not self.is_real:
                return np.einsum("ij,j->i", values, vector)
            return np.real(np.einsum("ij,j->i", values.conj(), vector))

    def is_finite(self, products: np.ndarray) -> bool:
        """Return whether products show that all entries of their lines are finite.

        A NaN or infinity times a number other than 0 spreads to the sum; of complex numbers a part
        may be dropped.
        """
        is_complex = "c" in (products.dtype.kind, self.vector.dtype.kind) or self.is_real
        return not is_complex and self._has_no_zeros and bool(np.isfinite(products).all())

    @functools.cached_property
    def _has_no_zeros(self) -> bool:
        return bool(np.all(self.vector))

    def zeros(self, dtype: np.dtype) -> np.ndarray:
        """Return the array, of shape (lines,), in which products are added up."""
        is_complex = not self.is_real and "c" in (dtype.kind, self.vector.dtype.kind)
        return np.zeros(len(self.product), np.complex128 if is_complex else np.float64)

    def differing(self, products: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Return which lines do not have their product.

        Args:
            products: The products of the lines.
            squares: The squared norms of the lines; zeros for a stricter comparison without them.
        """
        errors = relative_errors(products, self.product, squares, self.vector, self.floor)
        differing = errors > self.tolerance
        return differing if self.finite else differing & np.isfinite(products)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
