"""Sparse derivatives at many points: traced once, and compiled if requested."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from autodiff_core._engines.agreement import agreement_tolerance, relative_difference
from autodiff_core._engines.torch_compiler import EXPANDED, compiled
from autodiff_core._errors import first_line
from autodiff_core._operations import OPERATIONS
from autodiff_core._stream import blocks
from autodiff_core.sparse._colouring.colouring import Colouring
from autodiff_core.sparse._compressed import Side, csr_tensor, product_from, seeds_from, sides
from autodiff_core.sparse._errors import PatternError
from autodiff_core.sparse._reuse import require_same_branches
from autodiff_core.sparse._seed_graph import divided
from autodiff_core.sparse._segment_sums import sum_by_segments
from autodiff_core.sparse._values import value_of

# In a fused kernel this many operators take about as long as reading their result from memory.
_FUSED_OPERATORS = 8
# Differences below this are noise of a single measurement.
_NOISE_SECONDS = 0.02
_Products = Callable[[list[Tensor]], list[Tensor]]


class SparseEvaluator:
    """The sparse derivative of a function by a known colouring, for evaluation at many points.

    The compressed products are traced once, at the first point, so that an evaluation runs only
    their operators; `compile` passes the trace to `torch.compile`. Like the pattern, the trace
    freezes the branches that the function takes. It is used only if its products with random
    vectors agree with those of `blocks` and take no longer; otherwise each evaluation calls
    `blocks`.

    Attributes:
        colouring: The colouring.
        engine: The engine in use: ``compiled``, ``traced`` or ``plain``.
        refusal: The reason why the requested engine is not in use; None if it is.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        inputs: Any,
        colouring: Colouring,
        *,
        operation: str = "jacobian",
        compile: bool = False,
    ) -> None:
        """Trace the products, and compile them if requested, at a first point.

        Args:
            func: Called with the tensors of a tuple of inputs as its arguments.
            inputs: A tensor, a tuple of arguments, or another nested structure of tensors; real, of
                one dtype and on one device. Later ones have the same shapes.
            colouring: The colouring.
            operation: ``jacobian`` or ``hessian``.
            compile: Whether the products are compiled, which takes some seconds.

        Raises:
            PatternError: The colouring has another shape.
        """
        self.colouring = colouring
        self.refusal: str | None = None
        self._func = func
        self._operation = operation
        self._sides: list[tuple[Side, int]] = sides(colouring)
        leaves, self._structure = tree_flatten(inputs)
        outputs, self._returned = tree_flatten(value_of(func, inputs))
        self._seeds: list[list[Tensor]] = []
        for side, _ in self._sides:
            like = outputs if product_from(side, operation).multiplies_outputs else leaves
            self._seeds.append(seeds_from(side, colouring, like))
        shape = self._shape(leaves, outputs)
        if shape != colouring.pattern.shape:
            raise PatternError(
                f"the pattern has the shape {colouring.pattern.shape}, and the derivative {shape}"
            )
        device = leaves[0].device
        pattern = colouring.pattern
        self._indptr = torch.from_numpy(pattern.indptr).to(device)
        self._indices = torch.from_numpy(pattern.indices.astype(np.int64)).to(device)
        self._sources = torch.from_numpy(colouring.sources).to(device)
        self.engine, self._products = self._prepared(leaves, compile)

    def __call__(self, inputs: Any) -> Tensor:
        """Return the derivative at a point as a sparse CSR tensor, as `sparse_jacobian` does.

        Raises:
            PatternError: The pattern holds values of another point, and is not that of this one.
        """
        leaves = [leaf.detach() for leaf in tree_flatten(inputs)[0]]
        with torch.no_grad():
            products = self._products(leaves)
            flat = [product.reshape(-1) for product in products]
            joined = flat[0] if len(flat) == 1 else torch.cat([*flat, leaves[0].new_zeros(0)])
            values = joined.index_select(0, self._sources)
        pattern = self.colouring.pattern
        matrix = csr_tensor(self._indptr, self._indices, values, pattern.shape)
        require_same_branches(matrix, pattern, self._func, inputs, self._operation)
        return matrix

    def _shape(self, leaves: list[Tensor], outputs: list[Tensor]) -> tuple[int, int]:
        columns = sum(leaf.numel() for leaf in leaves)
        rows = (
            columns
            if OPERATIONS[self._operation].is_second_order
            else sum(o.numel() for o in outputs)
        )
        return rows, columns

    def _prepared(self, leaves: list[Tensor], compile: bool) -> tuple[str, _Products]:
        """Return the fastest engine that agrees with the plain one, by name and products."""
        generator = torch.Generator().manual_seed(7)
        random = [
            [torch.randn(s.shape, generator=generator, dtype=torch.float64).to(s) for s in stack]
            for stack in self._seeds
        ]
        points = [leaf.detach() for leaf in leaves]
        started = time.perf_counter()
        expected = self._plain(points, random)
        plain_seconds = time.perf_counter() - started
        for name in ("compiled", "traced") if compile else ("traced",):
            try:
                with torch.no_grad():
                    of_seeds, run = self._traced(points, with_compiler=name == "compiled")
                    found = run(*points, *of_seeds(*tree_flatten(random)[0]))
                    known = of_seeds(*tree_flatten(self._seeds)[0])
                    started = time.perf_counter()
                    run(*points, *known)
                    seconds = time.perf_counter() - started
            # Tracing and compiling can fail with an exception of any type.
            except Exception as error:
                if isinstance(error, Warning):
                    raise
                self.refusal = self.refusal or first_line(error)
                continue
            difference = max(map(_difference, expected, found), default=0.0)
            if difference > agreement_tolerance(leaves[0].dtype):
                refusal = f"its products differ from the plain ones by {difference:.1e}"
                self.refusal = self.refusal or refusal
            elif seconds > plain_seconds + _NOISE_SECONDS:
                self.refusal = self.refusal or "its products are slower than the plain ones"
            else:
                return name, partial(_products, run, known)
        return "plain", partial(self._plain, stacks=self._seeds)

    def _traced(self, points: list[Tensor], *, with_compiler: bool) -> tuple[Any, Any]:
        """Return what depends on seeds alone, and the products at a point as a function of it."""
        structure = tree_flatten((points, self._seeds))[1]

        # The compiler accepts only traces of functions of plain tensors.
        def of_tensors(*tensors: Tensor) -> list[Tensor]:
            return self._transformed(*tree_unflatten(list(tensors), structure))

        given = tree_flatten((points, self._seeds))[0]
        expanded = EXPANDED if with_compiler else {}
        traced = make_fx(of_tensors, decomposition_table=expanded)(*given)
        traced.graph.eliminate_dead_code()
        sum_by_segments(traced)
        least = _FUSED_OPERATORS if with_compiler else 1
        of_seeds, of_points = divided(traced, len(points), least_saved=least)
        return of_seeds, compiled(of_points) if with_compiler else of_points

    def _transformed(self, leaves: list[Tensor], stacks: list[list[Tensor]]) -> list[Tensor]:
        """Return the products of each side, shape (colours, elements), by torch's transforms."""

        def function(*point: Tensor) -> tuple[Tensor, ...]:
            inputs = tree_unflatten(list(point), self._structure)
            value = self._func(*inputs) if isinstance(inputs, tuple) else self._func(inputs)
            return tuple(tree_flatten(value)[0])

        def gradient(*point: Tensor) -> tuple[Tensor, ...]:
            places = tuple(range(len(point)))
            return torch.func.grad(_summed(function), argnums=places)(*point)

        subject = gradient if OPERATIONS[self._operation].is_second_order else function
        found = []
        for (side, count), stack in zip(self._sides, stacks, strict=True):
            if side == "right":
                push = torch.func.vmap(
                    lambda *tangent: torch.func.jvp(subject, tuple(leaves), tangent)[1]
                )
                images = push(*stack)
            else:
                pull: Any = torch.func.vjp(subject, *leaves)[1]
                images = torch.func.vmap(partial(_apart, pull))(*stack)
            found.append(torch.cat([image.reshape(count, -1) for image in images], dim=1))
        return found

    def _plain(self, leaves: list[Tensor], stacks: list[list[Tensor]]) -> list[Tensor]:
        inputs = tree_unflatten(leaves, self._structure)
        found = []
        for (side, _), stack in zip(self._sides, stacks, strict=True):
            operation = product_from(side, self._operation)
            structure = self._returned if operation.multiplies_outputs else self._structure
            stream = blocks(
                self._func,
                inputs,
                operation=operation.name,
                strategy="reverse-loop",
                vectors=tree_unflatten(stack, structure),
            )
            found.append(stream.matrix())
        return found


def _products(run: Any, known: list[Tensor], points: list[Tensor]) -> list[Tensor]:
    return run(*points, *known)


def _difference(expected: Tensor, found: Tensor) -> float:
    return relative_difference(expected, found, expected[None])


def _apart(pull: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]], *cotangent: Tensor) -> Any:
    return pull(cotangent)


def _summed(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    return lambda *point: function(*point)[0].sum()
