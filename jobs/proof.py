"""The proof of a result: every entry checked by products with random vectors.

For random vectors u and v the products M v and uᵀ M are computed by another route than the
strategy that makes the blocks. A block of rows must then reproduce its slice of M v, a block of
columns its slice of uᵀ M. A wrong entry hides from a random vector with probability zero
(R. Freivalds, "Probabilistic machines can use less running time", IFIP 1977), down to the
tolerance: half of the digits of the dtype relative to |row| |v|, more where the references
themselves disagree. A single wrong entry of typical size among n in its row shows as an error of
about 1/n relative to that, so that in float64 it is found up to about n = 10^7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import autodiff_core
from autodiff_core import Block, BlockStream
from jobs.job import PRODUCTS, Job

_PUSHFORWARD = {"jacobian": "jvp", "vjp": "jvp", "hessian": "hvp", "vhp": "hvp"}
_PULLBACK = {"jacobian": "vjp", "jvp": "vjp", "hessian": "vhp", "hvp": "vhp"}


@dataclass
class Proof:
    """The check of blocks against products with random vectors, and its figures.

    Attributes:
        lines: What a line of the matrix is multiplied with, shape (entries of a line,); None
            where no other route to the product exists.
        expected: What comes out for each line, shape (lines,).
        tolerance: The largest honest error relative to |line| |vector|.
        reason: Why there is no check, where there is none.
        checked: How many rows or columns were checked.
        largest_error: The largest relative error among them.
    """

    lines: Tensor | None
    expected: Tensor | None
    tolerance: float
    reason: str = ""
    checked: int = 0
    largest_error: float = 0.0
    _is_product: bool = field(default=False, repr=False)

    def error(self, block: Block) -> float:
        """The largest error of a block relative to |line| |vector|; 0 where none is checked."""
        if self.lines is None or self.expected is None:
            return 0.0
        values = block.values.to(self.lines.device)
        values = values if block.axis == "rows" else values.T
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        given = _project(values, self.lines.to(values.dtype), is_product=self._is_product)
        expected = self.expected[block.start : block.stop].to(given.dtype)
        size = torch.linalg.vector_norm(values, dim=1) * torch.linalg.vector_norm(self.lines)
        finite = torch.isfinite(given) & torch.isfinite(expected) & torch.isfinite(size)
        if not bool(finite.any()):
            return 0.0
        error = (given - expected).abs()[finite]
        scale = (size + expected.abs())[finite]
        return float(torch.where(error > 0, error / scale, torch.zeros_like(scale)).max())

    def record(self, block: Block, error: float) -> None:
        """Count a block that has passed."""
        if self.lines is not None:
            self.checked += block.stop - block.start
            self.largest_error = max(self.largest_error, error)

    def figures(self) -> dict[str, Any]:
        """What the result file keeps."""
        if self.lines is None:
            return {"kind": "none", "reason": self.reason}
        return {
            "kind": "probe",
            "lines_checked": self.checked,
            "largest_relative_error": self.largest_error,
            "tolerance": self.tolerance,
        }


def prepare_proof(job: Job, stream: BlockStream) -> Proof:
    """Compute the products with random vectors that blocks are held against.

    Args:
        job: The job.
        stream: Its stream of blocks; gives shapes and axis.
    """
    tolerance = torch.finfo(job.dtype).eps ** 0.5
    is_product = job.operation in PRODUCTS
    probes = _Probes(job, stream)
    if is_product:
        route, reason = probes.of_product()
    elif stream.axis == "rows":
        route, reason = probes.right()
    else:
        route, reason = probes.left()
    if route is None:
        return Proof(None, None, tolerance, reason=reason)
    vector, expected = route
    return Proof(vector, expected, tolerance, _is_product=is_product)


Route = tuple[Tensor, Tensor]


class _Probes:
    """Random vectors and their products by another route."""

    def __init__(self, job: Job, stream: BlockStream) -> None:
        self._job = job
        self._outputs = _leaves(stream.value)
        if job.operation in ("hessian", "vhp", "hvp"):
            self._outputs = list(job.point.values())
        self._inputs = list(job.point.values())
        self._generator = torch.Generator().manual_seed(int(job.fingerprint[:15], 16))
        self._is_complex = any(t.is_complex() for t in (*self._outputs, *self._inputs))

    def right(self) -> tuple[Route | None, str]:
        """V and M v, for blocks of rows."""
        vector = self._draw(self._inputs, real=True)
        routes = ("forward-loop", "reverse-loop")
        pushed, reason = self._product(_PUSHFORWARD[self._job.operation], vector, routes)
        if pushed is None:
            return None, reason
        if self._is_complex and not all(part.is_complex() for part in pushed):
            # The convention of the matrix: dy/d(Re x) + i dy/d(Im x) for real y.
            turned = [part * 1j if part.is_complex() else torch.zeros_like(part) for part in vector]
            seconds, reason = self._product(_PUSHFORWARD[self._job.operation], turned, routes)
            if seconds is None:
                return None, reason
            pushed = [
                first if first.is_complex() else torch.complex(first, second)
                for first, second in zip(pushed, seconds, strict=True)
            ]
        return (_flat(vector), _flat(pushed)), ""

    def left(self) -> tuple[Route | None, str]:
        """U and uᵀ M, for blocks of columns."""
        if self._is_complex:
            return None, "the proof of complex columns is by rows only"
        vector = self._draw(self._outputs, real=True)
        pulled, reason = self._product(_PULLBACK[self._job.operation], vector, ("reverse-loop",))
        return (None, reason) if pulled is None else ((_flat(vector), _flat(pulled)), "")

    def of_product(self) -> tuple[Route | None, str]:
        """W and the scalar products <V, M w> that the rows of a product must have with w.

        A row of a pullback is Mᵀ V_i, and <Mᵀ V_i, w> = <V_i, M w>; of a pushforward likewise.
        """
        operation = self._job.operation
        if operation in _PUSHFORWARD:
            vector = self._draw(self._inputs, real=False)
            routes = ("forward-loop", "reverse-loop")
            image, reason = self._product(_PUSHFORWARD[operation], vector, routes)
        else:
            vector = self._draw(self._outputs, real=False)
            image, reason = self._product(_PULLBACK[operation], vector, ("reverse-loop",))
        if image is None:
            return None, reason
        stacked = torch.cat(
            [part.reshape(len(part), -1) for part in self._job.vectors.values()], dim=1
        )
        expected = _project(_wide(stacked), _wide(_flat(image)), is_product=True)
        return (_flat(vector), expected), ""

    def _draw(self, like: Sequence[Tensor], *, real: bool) -> list[Tensor]:
        vectors = []
        for tensor in like:
            drawn = torch.randn(tensor.shape, generator=self._generator, dtype=torch.float64)
            if tensor.is_complex() and not real:
                second = torch.randn(tensor.shape, generator=self._generator, dtype=torch.float64)
                drawn = torch.complex(drawn, second)
            vectors.append(drawn.to(tensor.device, tensor.dtype))
        return vectors

    def _product(
        self, operation: str, vector: Sequence[Tensor], strategies: Sequence[str]
    ) -> tuple[list[Tensor] | None, str]:
        """The first product that one of the strategies can compute."""
        product: Callable[..., Any] = getattr(autodiff_core, operation)
        reason = ""
        for strategy in strategies:
            torch.manual_seed(self._job.seed)
            try:
                _, image = product(
                    self._job.function.function,
                    self._job.inputs,
                    tuple(vector),
                    strategy=strategy,
                )
            except (RuntimeError, NotImplementedError) as error:
                reason = str(error).splitlines()[0]
            else:
                return _leaves(image), ""
        return None, f"no other route to {operation}: {reason}"


def _project(values: Tensor, vector: Tensor, *, is_product: bool) -> Tensor:
    """Rows times a vector; for products the real scalar product, which is what adjoints keep."""
    if is_product and values.is_complex():
        return (values.conj() @ vector).real
    return values @ vector


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return list(value.values() if isinstance(value, dict) else value)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
