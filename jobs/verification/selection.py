"""The proof of a result while it is computed: blocks are held against what another route gives.

``verify=probe`` checks every entry. For random vectors u and v the products M v and uᵀ M are
computed by another route than the strategy that makes the blocks; a block of rows must reproduce
its slice of M v, a block of columns its slice of uᵀ M. This is the check of R. Freivalds,
"Probabilistic machines can use less running time" (IFIP 1977): a wrong line has an error of
exactly zero in it with probability zero.

The tolerance. The honest error of a line's product is that of a scalar product of n terms, within
λ √n ε |line| |v| in probability (N. J. Higham, T. Mary, "A new approach to probabilistic rounding
error analysis", SIAM J. Sci. Comput. 41, 2019), plus the rounding of the derivatives themselves,
which is ε times the condition of the function. Over the built-in problems and dtypes both together
were seen to stay below 16 ε relative to |line| |v|. Allowed is √ε, half of the digits, so that a
function may amplify rounding by 1/(16 √ε): 4 million times in float64, 180 times in float32. Lines
that cancel to almost nothing are measured against the typical product as well, and where all of
them do (a derivative that is zero only up to rounding), against what rounding of the value makes of
a derivative: ε |f| / |x|, of second order ε |f| / |x|².

What it finds. The components of u and v have magnitudes between 1/2 and 3/2 and random signs, so
that no entry hides behind a small one. A flipped sign in one entry of typical size among n shows as
an error of at least 2 · (1/2) / (√(13/12) n) relative to |line| |v|: in float64 above √ε up to
n = 6 · 10⁷, in float32 up to n = 2800.

``verify=sample`` recomputes a few random rows and columns by another strategy, and proves only
those.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from autodiff_core import Block, BlockStream
from jobs.functions.loading import SECOND_ORDER
from jobs.job import PRODUCTS, Job, leaves_of
from jobs.streams.at_points import products_at_points
from jobs.streams.summed import open_stream, product
from outputs import Probes

SAMPLES = 3
_PUSHFORWARD = {"jacobian": "jvp", "vjp": "jvp", "hessian": "hvp", "vhp": "hvp"}
_PULLBACK = {"jacobian": "vjp", "jvp": "vjp", "hessian": "vhp", "hvp": "vhp"}
# Dual numbers, or the double-backward trick where an operator has no forward derivative.
_FORWARD_ROUTES = ("forward-loop", "reverse-loop")
_REVERSE_ROUTES = ("reverse-loop",)


class Proof(Protocol):
    """Holds blocks against independent numbers and keeps the figures.

    Attributes:
        tolerance: The largest relative error that passes.
    """

    tolerance: float

    def error(self, block: Block) -> float:
        """The largest relative error of a block; 0 where nothing in it is checked."""
        ...

    def record(self, start: int, stop: int, error: float) -> None:
        """Count a block that has passed: its first line, the one past its last, its error."""
        ...

    def on(self, device: torch.device) -> Proof:
        """The same for blocks on another device, in another process, with nothing counted."""
        ...

    def figures(self) -> dict[str, Any]:
        """What the result file keeps."""
        ...

    def probes(self) -> Probes | None:
        """The vectors and products with which the file can be proved again, by itself."""
        ...

    def __str__(self) -> str:
        """How it went, in one line."""
        ...


def prepare_proof(job: Job, stream: BlockStream) -> Proof:
    """Compute by other routes what the blocks of a job are held against.

    Args:
        job: The job; its option `verify` says how much is checked.
        stream: Its stream of blocks; gives shapes and axis.
    """
    if job.verify == "off":
        return Unproved("verify=off")
    # A result stored in a shorter dtype is proved again from what is stored.
    widest = max(torch.finfo(dtype).eps for dtype in (job.dtype, job.storage or job.dtype))
    tolerance = widest**0.5
    if job.verify == "sample":
        return SampleProof(job, stream, tolerance)
    probes = ProbeProducts(job, stream.value)
    is_product = job.operation in PRODUCTS
    right, reason = probes.of_product() if is_product else probes.right()
    # Of many points the sum of uᵀ M over them would be known, and no line of it.
    is_right_only = is_product or job.points is not None
    left, left_reason = (None, "") if is_right_only else probes.left()
    needed = left if stream.axis == "columns" else right
    if needed is None:
        return Unproved(left_reason if stream.axis == "columns" else reason)
    floor = rounding_floor(job, stream.value, needed, tolerance)
    return ProbeProof(needed, right, left, tolerance, floor, is_product=is_product)


def rounding_floor(job: Job, returned: Any, probe: Probe, tolerance: float) -> float:
    """The size of products of which rounding alone is left, so that √ε of it is 16 ε of theirs."""
    value = _size([leaf for leaf in leaves_of(returned) if torch.is_floating_point(leaf)])
    point = _size(list(job.point.values())) or 1.0
    entry = value / point ** (2 if job.operation in SECOND_ORDER else 1)
    vectors = _size(list(job.vectors.values())) if job.vectors else 1.0
    return 16 * tolerance * entry * vectors * float(_wide(probe.vector).abs().square().sum().sqrt())


def _size(tensors: Sequence[Tensor]) -> float:
    """The root of the mean square of all finite entries; 0 where there are none."""
    flat = [_wide(tensor.detach()).abs().reshape(-1).cpu() for tensor in tensors]
    entries = torch.cat([part.double() for part in flat]) if flat else torch.zeros(0)
    entries = entries[torch.isfinite(entries)]
    return float(entries.square().mean().sqrt()) if entries.numel() else 0.0


class Unproved:
    """No check at all, for a stated reason."""

    tolerance = float("inf")

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        self._reason = reason

    def error(self, block: Block) -> float:
        """Nothing is checked."""
        return 0.0

    def record(self, start: int, stop: int, error: float) -> None:
        """Nothing is counted."""

    def on(self, device: torch.device) -> Unproved:
        """The same."""
        return self

    def figures(self) -> dict[str, Any]:
        """Only the reason."""
        return {"kind": "none", "reason": self._reason}

    def probes(self) -> Probes | None:
        """There are none."""
        return None

    def __str__(self) -> str:
        """Say that nothing was checked."""
        return f"not at all: {self._reason}"


@dataclass(frozen=True)
class Probe:
    """A random vector and its product with the matrix.

    Attributes:
        vector: Shape (columns,) for a product from the right, (rows,) for one from the left.
        product: Shape (rows,) or (columns,).
    """

    vector: Tensor
    product: Tensor


class ProbeProof:
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
        return _largest_difference(left, right) <= self.tolerance

    def of_rows(self) -> ProbeProof:
        """The same for blocks of rows.

        Raises:
            ValueError: There is no M v.
        """
        if self.right is None:
            raise ValueError("of_rows: no other route gives M v")
        return ProbeProof(
            self.right,
            self.right,
            self.left,
            self.tolerance,
            self.floor,
            is_product=self._is_product,
        )

    @classmethod
    def rehearsal(cls, job: Job, stream: BlockStream) -> ProbeProof:
        """A proof against nothing, that takes the time and the memory of a real one."""
        rows, columns = stream.shape
        lines, across = (rows, columns) if stream.axis == "rows" else (columns, rows)
        # Of a product with complex images only the real part counts.
        kind = {"dtype": stream.dtype.to_real(), "device": job.device}
        probe = Probe(_wide(torch.ones(across, **kind)), _wide(torch.zeros(lines, **kind)))
        return cls(probe, None, None, math.inf, 0.0, is_product=job.operation in PRODUCTS)

    def error(self, block: Block) -> float:
        """The largest error of a line relative to |line| |vector|."""
        values = _wide(block.values if block.axis == "rows" else block.values.T)
        vector = self._probe.vector.to(values.dtype)
        given = _project(values, vector, is_product=self._is_product)
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

    def on(self, device: torch.device) -> ProbeProof:
        """The same for blocks on another device; without the probes that only the file needs."""
        probe = Probe(self._probe.vector.to(device), self._probe.product.to(device))
        return ProbeProof(
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


class SampleProof:
    """A few random rows and columns are held against those of another strategy."""

    def __init__(self, job: Job, stream: BlockStream, tolerance: float) -> None:
        """Compute the rows by `reverse-loop` and the columns by `forward-loop`."""
        self.tolerance = tolerance
        self._largest = 0.0
        self._reason = ""
        self._rows: dict[int, Tensor] = {}
        self._columns: dict[int, Tensor] = {}
        if job.operation in PRODUCTS:
            self._reason = "verify=sample is for whole matrices"
            return
        generator = torch.Generator().manual_seed(_seed(job))
        for expected, length, axis, strategy in (
            (self._rows, stream.rows.size, "rows", "reverse-loop"),
            (self._columns, stream.columns.size, "columns", "forward-loop"),
        ):
            drawn = torch.randperm(length, generator=generator)[:SAMPLES].tolist()
            try:
                other = open_stream(
                    job.function.function,
                    job.inputs,
                    seed=job.seed,
                    operation=job.operation,
                    strategy=strategy,
                )
                for index in drawn:
                    expected[index] = other.block(index, index + 1).values.reshape(-1)
            except (RuntimeError, NotImplementedError) as error:
                self._reason = f"no {axis} by {strategy}: {str(error).splitlines()[0]}"

    def error(self, block: Block) -> float:
        """The largest error of an entry relative to the largest of its row or column."""
        lines, along, across = block.values, self._rows, self._columns
        if block.axis == "columns":
            lines, along, across = lines.T, across, along
        pairs = [
            (lines[index - block.start], expected)
            for index, expected in along.items()
            if block.start <= index < block.stop
        ]
        pairs += [
            (lines[:, index], expected[block.start : block.stop])
            for index, expected in across.items()
        ]
        return max((_largest_difference(*pair) for pair in pairs), default=0.0)

    def record(self, start: int, stop: int, error: float) -> None:
        """Keep the error of a block that has passed."""
        self._largest = max(self._largest, error)

    def on(self, device: torch.device) -> SampleProof:
        """The same for blocks on another device, with nothing counted."""
        moved = copy.copy(self)
        moved._rows, moved._columns = (
            {index: line.to(device) for index, line in lines.items()}
            for lines in (self._rows, self._columns)
        )
        return moved

    def figures(self) -> dict[str, Any]:
        """What the result file keeps."""
        return {
            "kind": "sample",
            "rows": sorted(self._rows),
            "columns": sorted(self._columns),
            "largest_relative_error": self._largest,
            "tolerance": self.tolerance,
            "reason": self._reason,
        }

    def probes(self) -> Probes | None:
        """There are none: a few lines prove nothing of the others."""
        return None

    def __str__(self) -> str:
        """Which lines passed, and how well."""
        sampled = f"{len(self._rows)} rows and {len(self._columns)} columns"
        reason = f"; {self._reason}" if self._reason else ""
        return (
            f"{sampled} agree with another strategy, largest relative error "
            f"{self._largest:.1e} (tolerance {self.tolerance:.1e}){reason}"
        )


class ProbeProducts:
    """Random vectors and their products by another route."""

    def __init__(self, job: Job, value: Any) -> None:
        """Take the job and what its function returns at the point."""
        self._job = job
        is_second_order = job.operation in SECOND_ORDER
        self._inputs = list(job.point.values())
        self._outputs = self._inputs if is_second_order else leaves_of(value)
        self._generator = torch.Generator()
        self._is_complex = any(t.is_complex() for t in (*self._outputs, *self._inputs))

    def right(self) -> tuple[Probe | None, str]:
        """The vector v and M v; of many points the v of one, for each of them."""
        self._generator.manual_seed(_seed(self._job))
        if self._job.points is not None:
            return self._right_at_points()
        vector = self._draw(self._inputs, real=True)
        operation = _PUSHFORWARD[self._job.operation]
        pushed, reason = self._product(operation, vector, _FORWARD_ROUTES)
        if pushed is None:
            return None, reason
        if self._is_complex and not all(part.is_complex() for part in pushed):
            # The convention of the matrix: dy/d(Re x) + i dy/d(Im x) for real y.
            turned = [part * 1j if part.is_complex() else torch.zeros_like(part) for part in vector]
            seconds, reason = self._product(operation, turned, _FORWARD_ROUTES)
            if seconds is None:
                return None, reason
            pushed = [
                first if first.is_complex() else torch.complex(first, second)
                for first, second in zip(pushed, seconds, strict=True)
            ]
        return Probe(_flat(vector), _flat(pushed)), ""

    def _right_at_points(self) -> tuple[Probe | None, str]:
        vector = self._draw([tensor[0] for tensor in self._inputs], real=True)

        def multiply(strategy: str) -> list[Tensor]:
            return products_at_points(
                _PUSHFORWARD[self._job.operation],
                self._job.function.function,
                self._inputs,
                vector,
                seed=self._job.seed,
                strategy=strategy,
            )

        pushed, reason = _first_route(multiply, _PUSHFORWARD[self._job.operation], _FORWARD_ROUTES)
        return (None, reason) if pushed is None else (Probe(_flat(vector), _flat(pushed)), "")

    def left(self) -> tuple[Probe | None, str]:
        """The vector u and uᵀ M; for a Hessian u is v, so that both tell its asymmetry."""
        self._generator.manual_seed(_seed(self._job))
        vector = self._draw(self._outputs, real=True)
        if not self._is_complex:
            pulled, reason = self._pull(vector)
            return (None, reason) if pulled is None else (Probe(_flat(vector), _flat(pulled)), "")
        # By the convention of the matrix, with y split into its real and complex tensors: for
        # a complex x the pullback of torch conjugates the complex part, for a real x it keeps
        # the real part and gives the imaginary one for i u.
        zeros = [torch.zeros_like(part) for part in vector]
        real, complex_ = (
            [u if u.is_complex() is wanted else zero for u, zero in zip(vector, zeros, strict=True)]
            for wanted in (False, True)
        )
        parts = [self._pull(u) for u in (real, complex_, [part * 1j for part in complex_])]
        from_real, from_complex, from_turned = (pulled for pulled, _ in parts)
        if from_real is None or from_complex is None or from_turned is None:
            return None, next(reason for _, reason in parts if reason)
        product = [
            a + b.conj() if x.is_complex() else torch.complex(a + b, c)
            for x, a, b, c in zip(self._inputs, from_real, from_complex, from_turned, strict=True)
        ]
        return Probe(_flat(vector), _flat(product)), ""

    def of_product(self) -> tuple[Probe | None, str]:
        """The vector w and the products <V, M w> that rows of a product must have with it.

        A row of a pullback is Mᵀ V_i, and <Mᵀ V_i, w> = <V_i, M w>; of a pushforward likewise.
        """
        self._generator.manual_seed(_seed(self._job))
        operation = self._job.operation
        if operation in _PUSHFORWARD:
            vector = self._draw(self._inputs, real=False)
            image, reason = self._product(_PUSHFORWARD[operation], vector, _FORWARD_ROUTES)
        else:
            vector = self._draw(self._outputs, real=False)
            image, reason = self._pull(vector)
        if image is None:
            return None, reason
        vectors = self._job.vectors.values()
        stacked = torch.cat([part.reshape(len(part), -1) for part in vectors], dim=1)
        expected = _project(_wide(stacked), _wide(_flat(image)), is_product=True)
        return Probe(_flat(vector), expected), ""

    def _draw(self, like: Sequence[Tensor], *, real: bool) -> list[Tensor]:
        vectors = []
        for tensor in like:
            drawn = self._signed(tensor.shape)
            if tensor.is_complex() and not real:
                drawn = torch.complex(drawn, self._signed(tensor.shape))
            vectors.append(drawn.to(tensor.device, tensor.dtype))
        return vectors

    def _signed(self, shape: Sequence[int]) -> Tensor:
        """Magnitudes from 1/2 to 3/2 with random signs, float64."""
        uniform = torch.rand(tuple(shape), generator=self._generator, dtype=torch.float64)
        return (0.5 + uniform) * torch.sign(
            torch.rand(tuple(shape), generator=self._generator, dtype=torch.float64) - 0.5
        )

    def _pull(self, vector: Sequence[Tensor]) -> tuple[list[Tensor] | None, str]:
        operation = _PULLBACK.get(self._job.operation, self._job.operation)
        return self._product(operation, vector, _REVERSE_ROUTES)

    def _product(
        self, operation: str, vector: Sequence[Tensor], strategies: Sequence[str]
    ) -> tuple[list[Tensor] | None, str]:
        """The product by the first of the strategies that can compute it, or why none can."""

        def multiply(strategy: str) -> list[Tensor]:
            return leaves_of(
                product(
                    operation,
                    self._job.function.function,
                    self._job.inputs,
                    tuple(vector),
                    seed=self._job.seed,
                    strategy=strategy,
                )
            )

        return _first_route(multiply, operation, strategies)


def _first_route(
    multiply: Callable[[str], list[Tensor]], operation: str, strategies: Sequence[str]
) -> tuple[list[Tensor] | None, str]:
    reason = ""
    for strategy in strategies:
        try:
            return multiply(strategy), ""
        except (RuntimeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
    return None, f"no other route to {operation}: {reason}"


def _project(values: Tensor, vector: Tensor, *, is_product: bool) -> Tensor:
    """Rows times a vector; for products the real scalar product, which is what adjoints keep."""
    if is_product and values.is_complex():
        return (values.conj() @ vector).real
    return values @ vector


def _largest_difference(given: Tensor, expected: Tensor) -> float:
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


def _seed(job: Job) -> int:
    return int(job.fingerprint[:15], 16)
