"""Reverse-mode strategies: one retained graph, pulled back row by row or batched."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autodiff_core._engines.batched import (
    Batched,
    LinearMap,
    Report,
    agreement_tolerance,
    one_by_one,
)
from autodiff_core._engines.captured import Apply
from autodiff_core._engines.choice import ALL, PLAIN, EngineChoice
from autodiff_core._errors import DoubleBackwardError, explained
from autodiff_core._linearization.functions import Function
from autodiff_core._tensors.vectors import Vector, Vectors


class ReverseLoop:
    """The function is evaluated once; each cotangent is one backward pass over its graph.

    The way that survives most functions, and the reference for the others.

    Attributes:
        axis: What a basis chunk gives: rows.
        outputs: The outputs at the point, with their graph.
        engines: The engines that there are for the strategy.
        engine: The one that is used.
    """

    axis = "rows"
    name = "reverse-loop"
    engines = PLAIN

    def __init__(
        self,
        function: Function,
        primals: tuple[Tensor, ...],
        *,
        create_graph: bool,
        report: Report,
        engine: str = "plain",
    ) -> None:
        """Evaluate the function at the primals and keep the graph.

        Args:
            function: The function to linearise.
            primals: The point; tensors that require a gradient.
            create_graph: Whether derivatives must themselves be differentiable.
            report: Is told every slower way that is taken.
            engine: One of `engines`, or ``auto``.
        """
        self._primals = primals
        self._create_graph = create_graph
        self._report = report
        self.engine = EngineChoice(engine, self.name, report)
        self._transposed: TransposedPullback | None = None
        with explained(self.name), torch.enable_grad():
            self.outputs = function(*primals)

    def pullback(self, cotangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Vector-Jacobian products.

        Args:
            cotangents: Vectors over the outputs.
            start: The first vector.
            stop: One past the last.

        Returns:
            For each input a tensor of shape (stop - start, *input.shape).
        """
        with explained(self.name):
            return self._apply(self._pull, cotangents, start, stop)

    def pushforward(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Jacobian-vector products by the double-backward trick.

        Args:
            tangents: Vectors over the inputs.
            start: The first vector.
            stop: One past the last.

        Returns:
            For each output a tensor of shape (stop - start, *output.shape).

        Raises:
            DoubleBackwardError: The trick gives wrong numbers for this function.
        """
        with explained(self.name):
            if self._transposed is None:
                self._transposed = TransposedPullback(
                    self.outputs, self._primals, create_graph=self._create_graph
                )
            images = self._apply(self._transposed.push, tangents, start, stop)
        self._transposed.check(tangents.stack(start, stop), images)
        return images

    def _apply(
        self, linear_map: LinearMap, vectors: Vectors, start: int, stop: int
    ) -> tuple[Tensor, ...]:
        return one_by_one(linear_map, vectors, start, stop, keep_graph=self._create_graph)

    def _pull(self, cotangent: Vector) -> tuple[Tensor, ...]:
        return pull(self.outputs, self._primals, cotangent, create_graph=self._create_graph)


class Vectorize(ReverseLoop):
    """The same retained graph, pulled back for a whole basis chunk at once under vmap."""

    name = "vectorize"
    engines = ALL

    def _apply(
        self, linear_map: LinearMap, vectors: Vectors, start: int, stop: int
    ) -> tuple[Tensor, ...]:
        if linear_map not in self._batched:
            plain = Batched(
                linear_map,
                linear_map,
                strategy=self.name,
                keep_graph=self._create_graph,
                report=self._report,
            )
            space = self.outputs if linear_map == self._pull else self._primals
            self._batched[linear_map] = self.engine.engine(linear_map, space, plain)
        return self._batched[linear_map](vectors, start, stop)

    def __init__(
        self,
        function: Function,
        primals: tuple[Tensor, ...],
        *,
        create_graph: bool,
        report: Report,
        engine: str = "plain",
    ) -> None:
        """Evaluate the function at the primals and keep the graph, as `ReverseLoop` does."""
        super().__init__(function, primals, create_graph=create_graph, report=report, engine=engine)
        self._batched: dict[LinearMap, Apply] = {}


def pull(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangent: Vector,
    *,
    create_graph: bool,
) -> tuple[Tensor, ...]:
    """One backward pass over a graph that is kept.

    Args:
        outputs: The outputs; those that require no gradient contribute nothing.
        inputs: What to differentiate with respect to.
        cotangent: A tensor for each output, or None for zeros.
        create_graph: Whether the result must be differentiable.

    Returns:
        For each input a tensor of its shape; zeros where no output depends on it.
    """
    pairs = [
        (output, vector)
        for output, vector in zip(outputs, cotangent, strict=True)
        if vector is not None and output.requires_grad
    ]
    if not pairs:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    return torch.autograd.grad(
        [output for output, _ in pairs],
        inputs,
        [vector for _, vector in pairs],
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )


class TransposedPullback:
    """The pushforward as the derivative of the pullback, which is linear in its cotangent.

    J v is the gradient of <Jᵀ u, v> with respect to u: J. Townsend, "A new trick for calculating
    Jacobian vector products" (2017). The trick needs a backward that is itself differentiable;
    where one is not (it leaves torch for numpy, say) the numbers come out wrong without an error.
    Here u is random, so that <J v, u> = <v, Jᵀ u> can be checked with two scalar products.
    """

    def __init__(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], *, create_graph: bool
    ) -> None:
        """Pull a random cotangent back, keeping the graph of that."""
        self._outputs = outputs
        self._inputs = inputs
        self._create_graph = create_graph
        generator = torch.Generator().manual_seed(0)
        self._cotangent = tuple(
            _standard_normal(output, generator).requires_grad_(_is_inexact(output))
            for output in outputs
        )
        with torch.enable_grad():
            self._pulled = pull(outputs, inputs, self._cotangent, create_graph=True)

    def push(self, tangent: Vector) -> tuple[Tensor, ...]:
        """One Jacobian-vector product; a tensor for each output."""
        inexact = [u for u in self._cotangent if u.requires_grad]
        pushed = iter(pull(self._pulled, inexact, tangent, create_graph=self._create_graph))
        return tuple(
            next(pushed).to(output.dtype) if u.requires_grad else torch.zeros_like(output)
            for output, u in zip(self._outputs, self._cotangent, strict=True)
        )

    def check(self, tangents: Vector, images: Sequence[Tensor]) -> None:
        """Check the adjoint identity for stacked tangents and their images.

        The error is allowed half of the digits of the terms. Where they cancel to rounding (a
        derivative that is zero, but for that) it is allowed what the rounding of the outputs
        makes of a derivative, ε |y| / |x|.

        Raises:
            DoubleBackwardError: It does not hold.
        """
        with torch.no_grad():
            left, left_size = _scalar_products(images, self._cotangent)
            right, right_size = _scalar_products(tangents, self._pulled)
            error = (left - right).abs()
            tolerance = max(
                (agreement_tolerance(image.dtype) for image in images if _is_inexact(image)),
                default=0.0,
            )
            rounding = 16 * tolerance**2 * _root_mean_square(self._outputs)
            rounding = rounding / (_root_mean_square(self._inputs) or 1.0)
            lengths = _lengths(tangents) * _lengths([u[None] for u in self._cotangent])
            allowed = tolerance * (left_size + right_size) + rounding * lengths
            wrong = torch.isfinite(error) & (error > allowed)
            if bool(wrong.any()):
                raise DoubleBackwardError(
                    "the double-backward trick gives wrong numbers for this function: a "
                    "backward in it is not differentiable, as one that leaves torch is not; "
                    "the strategy 'forward-mode' does without the trick, and so does the "
                    "product from the other side (vjp for jvp, vhp for hvp)"
                )


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    dtype = torch.complex128 if like.is_complex() else torch.float64
    drawn = torch.randn(like.shape, generator=generator, dtype=dtype)
    return drawn.to(device=like.device, dtype=like.dtype)


def _scalar_products(
    stacks: Sequence[Tensor | None], vector: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Real scalar products of stacked vectors with one vector, and the sizes of the terms."""
    products = torch.zeros(())
    sizes = torch.zeros(())
    for stack, part in zip(stacks, vector, strict=True):
        if stack is None or not _is_inexact(part):
            continue
        wide = torch.complex128 if part.is_complex() else torch.float64
        terms = (stack.to(wide) * part.to(wide).conj()).real.reshape(len(stack), part.numel())
        products = products + terms.sum(1).cpu()
        sizes = sizes + terms.abs().sum(1).cpu()
    return products, sizes


def _lengths(stacks: Sequence[Tensor | None]) -> Tensor:
    """The Euclidean lengths of stacked vectors, shape (vectors,)."""
    squares = torch.zeros(())
    for stack in stacks:
        if stack is not None and _is_inexact(stack):
            flat = (
                stack.detach()
                .abs()
                .to(torch.float64)
                .reshape(len(stack), -1 if stack.numel() else 0)
            )
            squares = squares + flat.square().sum(1).cpu()
    return squares.sqrt()


def _root_mean_square(tensors: Sequence[Tensor]) -> float:
    """Of all finite entries; 0 where there are none."""
    parts = [t.detach().abs().to("cpu", torch.float64).reshape(-1) for t in tensors]
    entries = torch.cat([part[torch.isfinite(part)] for part in parts])
    return float(entries.square().mean().sqrt()) if entries.numel() else 0.0
