"""From an operation, a function and a point to a linearised function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autodiff_core._block import Axis
from autodiff_core._engines.agreement import ReportFallback
from autodiff_core._linearization.arguments import Arguments, FlatFunction, Tensors, prepare_primals
from autodiff_core._linearization.forward import ForwardLoop, ForwardMode
from autodiff_core._linearization.functions import Direct, Function, Gradient, Pointwise
from autodiff_core._linearization.linearization import Linearization, Request
from autodiff_core._linearization.reverse import ReverseLoop, Vectorize
from autodiff_core._linearization.second_order import check_second_order
from autodiff_core._linearization.strict import require_dependence, require_graph
from autodiff_core._operations import Operation, operation_named
from autodiff_core._tensors.randomness import ReplayedRandomness
from autodiff_core._tensors.tree import TreeStructure, is_leaf
from autodiff_core._tensors.vectors import StackedVectors

STRATEGIES: dict[str, type[Linearization]] = {
    strategy.name: strategy for strategy in (ReverseLoop, Vectorize, ForwardMode, ForwardLoop)
}


@dataclass(frozen=True)
class Linearized:
    """A function linearised at a point.

    Attributes:
        operation: What is to be computed.
        strategy: The name of the strategy.
        inputs: The differentiated tensors as the user gave them, with their nesting.
        primals: The same as tensors of our own.
        outputs: The function's outputs with their nesting, differentiable where asked for.
        auxiliary: What the function returned beside its outputs.
        linearization: The pullback and pushforward. Its outputs are the function's, or the
            gradient for the second-order operations.
        points: The number of points where there are many.
        keep_graph: Whether derivatives must be differentiable.
    """

    operation: Operation
    strategy: str
    inputs: Tensors
    primals: tuple[Tensor, ...]
    outputs: Tensors
    auxiliary: Any
    linearization: Linearization
    points: int | None
    keep_graph: bool


@dataclass(frozen=True)
class Choices:
    """How a function is to be linearised, the part that all operations share.

    Attributes:
        strategy: One of `STRATEGIES`.
        create_graph: Whether derivatives must be differentiable.
        strict: Whether a derivative that is zero by structure is an error.
        argnums: The arguments to differentiate; None stands for all.
        has_aux: Whether the function returns a pair (output, auxiliary).
        points: Whether the inputs have a leading dimension over points.
        engine: One of those that `engines` names, or ``auto``.
    """

    strategy: str
    create_graph: bool = False
    strict: bool = False
    argnums: int | Sequence[int] | None = None
    has_aux: bool = False
    points: bool = False
    engine: str = "plain"


def engines(operation: str, strategy: str) -> tuple[str, ...]:
    """The engines that there are for an operation by a strategy.

    Args:
        operation: ``jacobian``, ``hessian``, ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        strategy: ``reverse-loop``, ``vectorize``, ``forward-mode`` or ``forward-loop``.

    Returns:
        Values of the argument `engine` of `blocks`, the one that works for most functions first.

    Raises:
        ValueError: There is no such operation or strategy, or they do not go together.
    """
    return _strategy(strategy, operation_named(operation)).engines


def linearize(
    name: str, func: Callable[..., Any], inputs: Any, choices: Choices, report: ReportFallback
) -> Linearized:
    """Linearise a function for an operation.

    Args:
        name: One of `OPERATIONS`.
        func: The function.
        inputs: Its argument, or the tuple of its arguments.
        choices: How.
        report: Is told every slower way that is taken.

    Raises:
        TypeError: Inputs or outputs that are not tensors.
        ValueError: A strategy or combination that does not exist.
        RuntimeError: A function that is not scalar for a second-order operation, or what
            `strict` forbids.
    """
    operation = operation_named(name)
    strategy = _strategy(choices.strategy, operation)
    if choices.engine not in (*strategy.engines, "auto"):
        valid = ", ".join(("auto", *strategy.engines))
        raise ValueError(
            f"{name}: engine={choices.engine!r}: valid with strategy={choices.strategy!r} are "
            f"{valid}"
        )
    arguments = Arguments(inputs, choices.argnums, name)
    given = arguments.differentiated.leaves
    points = _points(given, name) if choices.points else None
    flat = FlatFunction(func, arguments, name, has_aux=choices.has_aux)

    def linearized_by(strategy: type[Linearization]) -> Linearized:
        primals = prepare_primals(given, create_graph=choices.create_graph)
        direct: Function = Direct(flat)
        if points is not None:
            direct = Pointwise(direct, strategy=strategy.name, report=report)
        randomness = ReplayedRandomness(primals)
        gradient = Gradient(direct, name, points=points)
        function = gradient if operation.is_second_order else direct
        linearization = strategy(
            Request(function, primals, choices.create_graph, report, choices.engine)
        )
        assert flat.structure is not None
        if operation.is_second_order:
            _check_single_output(flat.structure, name)
        if gradient.has_custom_backward:
            _check_second_order(gradient, linearization, primals, randomness)
        value = linearization.outputs if gradient.value is None else (gradient.value,)
        return Linearized(
            operation,
            strategy.name,
            arguments.differentiated,
            primals,
            Tensors(value, flat.structure),
            flat.auxiliary,
            linearization,
            points,
            choices.create_graph,
        )

    if not choices.strict:
        return linearized_by(strategy)
    if strategy.axis is Axis.ROWS:
        linearized = linearized_by(strategy)
        _check_strict(linearized, name)
        return linearized
    # Which output depends on which input stands in the graph of reverse mode alone.
    with ReplayedRandomness(given).replayed():
        reference = linearized_by(ReverseLoop)
    _check_strict(reference, name)
    if choices.create_graph:
        _check_strict_derivative(reference, name)
    return linearized_by(strategy)


def _check_single_output(structure: TreeStructure, name: str) -> None:
    if not is_leaf(structure):
        raise RuntimeError(
            f"{name}: func returned a tensor nested in another structure; valid is the tensor "
            "itself, with one element"
        )


def _check_second_order(
    gradient: Gradient,
    linearization: Linearization,
    primals: tuple[Tensor, ...],
    randomness: ReplayedRandomness,
) -> None:
    # A Hessian is symmetric: both products give the same.
    def product(vector: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return linearization.lines(StackedVectors([part.unsqueeze(0) for part in vector]), 0, 1)

    check_second_order(gradient, product, primals, randomness.replayed)


def _check_strict(linearized: Linearized, name: str) -> None:
    require_graph(name, linearized.outputs.leaves, "output")
    if linearized.operation.is_second_order:
        require_graph(name, linearized.linearization.outputs, "the gradient for input")
    require_dependence(
        name,
        linearized.linearization.outputs,
        linearized.primals,
        jointly=linearized.operation.product is not None,
    )


def _check_strict_derivative(reference: Linearized, name: str) -> None:
    """Check that the derivative depends on the inputs.

    Tangents of forward mode are connected to all they are multiplied by, zeros included, so the
    derivative that reverse mode gives is asked.
    """
    way = reference.linearization
    is_pushforward = reference.operation.product == "pushforward"
    space = reference.primals if is_pushforward else way.outputs
    ones = StackedVectors([torch.ones_like(tensor).detach()[None] for tensor in space])
    derivatives = (way.pushforward if is_pushforward else way.pullback)(ones, 0, 1)
    require_graph(name, derivatives, "the derivative for tensor")


def _strategy(name: str, operation: Operation) -> type[Linearization]:
    if name not in STRATEGIES:
        raise ValueError(f"{operation.name}: strategy={name!r}: valid are {', '.join(STRATEGIES)}")
    strategy = STRATEGIES[name]
    if operation.product == "pullback" and strategy.axis is Axis.COLUMNS:
        other = operation.product_with("pushforward").name
        raise ValueError(
            f"{operation.name}: strategy={name!r} has no pullback; valid are 'reverse-loop' and "
            f"'vectorize', or the operation {other!r}, whose product is from the other side"
        )
    return strategy


def _points(primals: Sequence[Tensor], name: str) -> int:
    counts = {primal.shape[0] if primal.dim() else None for primal in primals}
    if len(counts) != 1 or None in counts or 0 in counts:
        shapes = ", ".join(str(tuple(primal.shape)) for primal in primals)
        raise RuntimeError(
            f"{name}: with points=True all inputs need the same leading dimension of at least 1; "
            f"their shapes are {shapes}"
        )
    (count,) = counts
    assert count is not None
    return count
