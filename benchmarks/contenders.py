"""The contenders of the speed benchmark: ours, and what a user would write by hand in torch.

A contender computes a range of rows or columns of the matrix. Its preparation is not timed; this
includes JAX's compilation and our check of the first chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from workloads import Instance

import autodiff_core
from jobs.functions.kernels import differentiable_kernels

CHUNK_SIZES: tuple[int | None, ...] = (1, 4, 16, 64, 256, None)

swept: Sequence[int | None] = CHUNK_SIZES
"""The chunk sizes that this run tries."""

DEFAULT, SWEPT = "ours", "ours, chosen by hand"
"""The groups of our blocks: as the default job chose them, and the fastest of a sweep."""

Lines = Callable[[int, int], Any]
"""Computes the rows or columns start, ..., stop - 1; returns (lines, elements), in torch or JAX."""


@dataclass(frozen=True)
class Contender:
    """One variant of computing the matrix.

    Attributes:
        group: The library it belongs to.
        name: The variant's name, with the chunk size.
        axis: The axis of its chunks: ``rows`` or ``columns``.
        lines: The number of rows or columns.
        chunk_size: The number of lines per chunk.
        prepare: Returns the function that computes lines.
    """

    group: str
    name: str
    axis: str
    lines: int
    chunk_size: int
    prepare: Callable[[], Lines]

    @property
    def way(self) -> str:
        """The name without the chunk size at its end."""
        return self.name.removesuffix(f" {self.chunk_size}")


def flat_function(instance: Instance) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the function of one flat vector, and the flat point."""
    shapes = [part.shape for part in instance.point]
    sizes = [part.numel() for part in instance.point]

    def function(flat: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        return instance.function(*parts).reshape(-1)

    return function, torch.cat([part.reshape(-1) for part in instance.point])


def one_hot(size: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Return a range of the standard basis."""
    basis = torch.zeros(stop - start, size, device=device)
    basis[:, start:stop].fill_diagonal_(1)
    return basis


def ours(instance: Instance) -> Iterator[Contender]:
    """Yield blocks of `autodiff_core` by each strategy, plain and captured."""
    operation = instance.workload.operation
    strategies = ("vectorize",) if operation == "vjp" else ("vectorize", "forward-mode")
    for strategy in strategies:
        for engine in autodiff_core.engines(operation, strategy):
            if engine != "compiled":
                yield from ours_by(instance, strategy, engine)


def ours_compiled(instance: Instance, seconds: dict[str, float]) -> Iterator[Contender]:
    """Yield compiled programs, at the best chunk size of each strategy: compiling takes seconds.

    Args:
        instance: The problem.
        seconds: The time of each of our contenders, by name.
    """
    for strategy in ("vectorize", "forward-mode"):
        captured = {n: t for n, t in seconds.items() if n.startswith(f"{strategy} captured")}
        if captured:
            best = min(captured, key=captured.__getitem__).rsplit(" ", 1)[1]
            sizes = {
                contender.name: contender for contender in ours_by(instance, strategy, "compiled")
            }
            yield sizes[f"{strategy} compiled {best}"]


def ours_by_default(instance: Instance, job: dict[str, Any]) -> Contender:
    """Return ours with the strategy, the engine and the chunk size that a job chose."""
    (chosen,) = ours_by(instance, job["strategy"], job["engine"], [job["chunk_size"]])
    return replace(chosen, group=DEFAULT)


def ours_by(
    instance: Instance, strategy: str, engine: str, sizes: Sequence[int] | None = None
) -> Iterator[Contender]:
    """Yield ours by one strategy and engine, with each chunk size, or with the given ones."""
    vectors = nested_vectors(instance)
    is_by_rows = strategy == "vectorize" or gives_rows(instance)
    lines = instance.rows if is_by_rows else instance.columns
    for size in sizes or chunk_sizes(lines):
        yield Contender(
            SWEPT,
            f"{strategy} {engine} {size}",
            "rows" if is_by_rows else "columns",
            lines,
            size,
            lambda size=size: our_lines(instance, strategy, engine, size, vectors),
        )


def gives_rows(instance: Instance) -> bool:
    """Return whether forward mode computes rows: of products, and of symmetric matrices."""
    return instance.workload.vectors > 0 or instance.workload.operation == "hessian"


def our_lines(
    instance: Instance, strategy: str, engine: str, chunk_size: int, vectors: Any
) -> Lines:
    """Open a stream and return the function that computes its lines."""
    with differentiable_kernels():  # as in a job
        stream = autodiff_core.blocks(
            instance.function,
            instance.point,
            operation=instance.workload.operation,
            strategy=strategy,
            engine=engine,
            chunk_size=chunk_size,
            vectors=vectors,
        )
    if stream.axis == "columns" and gives_rows(instance):
        stream = stream.rows_by_symmetry()

    # A job enters this once, not for each chunk; reverse mode does not evaluate the function again.
    evaluating = differentiable_kernels if strategy == "forward-mode" else nullcontext

    def lines(start: int, stop: int) -> Tensor:
        with evaluating():
            values = stream.block(start, stop).values
        return values if stream.axis == "rows" else values.T

    return lines


def nested_vectors(instance: Instance) -> Any:
    """Return the vectors of a product in the shapes of the tensors that they multiply."""
    vectors = instance.drawn_vectors()
    if vectors is None:
        return None
    if instance.workload.operation == "vjp":
        with torch.no_grad():
            return vectors.view(len(vectors), *instance.function(*instance.point).shape)
    sizes = [part.numel() for part in instance.point]
    parts = vectors.split(sizes, dim=1)
    return tuple(
        part.reshape(len(vectors), *given.shape)
        for part, given in zip(parts, instance.point, strict=True)
    )


def torch_func(instance: Instance) -> Iterator[Contender]:
    """Yield hand-written `torch.func` and batched autograd, each with every chunk size."""
    function, point = flat_function(instance)
    target: Any = function
    if instance.is_second_order:
        target = torch.func.grad(lambda x: function(x)[0])
    vectors = instance.drawn_vectors()
    with torch.no_grad():
        outputs = instance.columns if instance.is_second_order else function(point).numel()

    def basis(size: int, start: int, stop: int) -> Tensor:
        if vectors is not None:
            return vectors[start:stop]
        return one_hot(size, start, stop, instance.device)

    def reverse() -> Lines:
        pull = torch.func.vjp(target, point)[1]
        batched = torch.func.vmap(lambda u: pull(u)[0])
        return lambda start, stop: batched(basis(outputs, start, stop))

    def retained() -> Lines:
        x = point.clone().requires_grad_()
        y = function(x)
        if instance.is_second_order:
            (y,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)

        def pull(u: Tensor) -> Tensor:
            return torch.autograd.grad(y, x, u, retain_graph=True)[0]

        return lambda start, stop: torch.func.vmap(pull)(basis(outputs, start, stop))

    def batched_autograd() -> Lines:
        x = point.clone().requires_grad_()
        y = function(x)
        if instance.is_second_order:
            (y,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
        return lambda start, stop: torch.autograd.grad(
            y, x, basis(outputs, start, stop), retain_graph=True, is_grads_batched=True
        )[0]

    def forward() -> Lines:
        def push(t: Tensor) -> Tensor:
            return torch.func.jvp(target, (point,), (t,))[1]

        return lambda start, stop: torch.func.vmap(push)(basis(len(point), start, stop))

    def linearize() -> Lines:
        push = torch.func.linearize(target, point)[1]
        batched = torch.func.vmap(push)
        return lambda start, stop: batched(basis(len(point), start, stop))

    ways = [
        ("vjp", reverse, "rows"),
        ("retained graph, vmap", retained, "rows"),
        ("is_grads_batched", batched_autograd, "rows"),
        ("jvp", forward, "columns"),
        ("linearize", linearize, "columns"),
    ]
    is_pullback = instance.workload.operation == "vjp"
    for name, prepare, axis in ways:
        if is_pullback and axis == "columns":
            continue
        shown = "rows" if gives_rows(instance) else axis
        lines = instance.rows if shown == "rows" else instance.columns
        for size in chunk_sizes(lines):
            yield Contender("torch.func", f"{name} {size}", shown, lines, size, prepare)


def functional(instance: Instance) -> Iterator[Contender]:
    """Yield `torch.autograd.functional`, which computes everything at once, for the first rows.

    A Hessian is computed as the Jacobian of the gradient; a product, one vector at a time.
    """
    function, point = flat_function(instance)
    vectors = instance.drawn_vectors()
    module = torch.autograd.functional
    if vectors is not None:
        product = getattr(module, instance.workload.operation)
        scalar = (lambda x: function(x)[0]) if instance.is_second_order else function
        names = [instance.workload.operation]
        names += ["vhp"] if instance.workload.operation == "hvp" else []
        for name in names:
            product = getattr(module, name)

            def one(start: int, stop: int, product: Any = product) -> Tensor:
                return product(scalar, point, vectors[start])[1][None]

            yield Contender(
                "torch.autograd.functional", name, "rows", instance.rows, 1, lambda one=one: one
            )
        return

    def target(x: Tensor) -> Tensor:
        if not instance.is_second_order:
            return function(x)
        y = function(x)
        return torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)[0]

    def rows(start: int, stop: int, *, vectorize: bool) -> Any:
        return module.jacobian(lambda x: target(x)[start:stop], point, vectorize=vectorize)

    lines = instance.rows
    for vectorize in (False, True):
        # The loop is measured on few rows, including the evaluation of the function.
        size = min(lines, 8) if not vectorize else lines
        yield Contender(
            "torch.autograd.functional",
            f"vectorize={vectorize}",
            "rows",
            lines,
            size,
            lambda vectorize=vectorize: lambda a, b: rows(a, b, vectorize=vectorize),
        )
    if not instance.is_second_order:
        yield Contender(
            "torch.autograd.functional",
            "forward-mode",
            "columns",
            instance.columns,
            instance.columns,
            lambda: (
                lambda a, b: (
                    module.jacobian(function, point, strategy="forward-mode", vectorize=True).T
                )
            ),
        )


def chunk_sizes(lines: int) -> list[int]:
    """Return the distinct chunk sizes that are swept."""
    return sorted({min(lines, lines if size is None else size) for size in swept})
