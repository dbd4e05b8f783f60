"""From an operation, a function and a point to a linearised function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autodiff_core._engines.agreement import Report
from autodiff_core._linearization.arguments import Arguments, FlatFunction, Tensors, prepare_primals
from autodiff_core._linearization.forward import ForwardLoop, ForwardMode
from autodiff_core._linearization.functions import Direct, Function, Gradient, Pointwise
from autodiff_core._linearization.reverse import ReverseLoop, Vectorize
from autodiff_core._linearization.second_order import check_second_order
from autodiff_core._linearization.strict import require_dependence, require_graph
from autodiff_core._tensors.randomness import ReplayedRandomness
from autodiff_core._tensors.tree import TreeStructure, is_leaf
from autodiff_core._tensors.vectors import StackedVectors


class Operation(NamedTuple):
    """What an operation computes.

    Attributes:
        is_second_order: Whether it differentiates the gradient of a scalar function.
        product: ``"pullback"`` or ``"pushforward"`` for a product with vectors; None for the
            whole matrix.
    """

    is_second_order: bool
    product: str | None


OPERATIONS = {
    "jacobian": Operation(False, None),
    "hessian": Operation(True, None),
    "vjp": Operation(False, "pullback"),
    "jvp": Operation(False, "pushforward"),
    "vhp": Operation(True, "pullback"),
    "hvp": Operation(True, "pushforward"),
}

STRATEGIES: dict[str, type[ReverseLoop] | type[ForwardLoop]] = {
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
    linearization: ReverseLoop | ForwardLoop
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
    _operation(operation)
    return _strategy(strategy, operation).engines


def linearize(
    name: str, func: Callable[..., Any], inputs: Any, choices: Choices, report: Report
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
    operation = _operation(name)
    strategy = _strategy(choices.strategy, name)
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

    def linearized_by(strategy: type[ReverseLoop] | type[ForwardLoop]) -> Linearized:
        primals = prepare_primals(given, create_graph=choices.create_graph)
        direct: Function = Direct(flat)
        if points is not None:
            direct = Pointwise(direct, strategy=strategy.name, report=report)
        randomness = ReplayedRandomness(primals)
        gradient = Gradient(direct, name, points=points)
        linearization = strategy(
            gradient if operation.is_second_order else direct,
            primals,
            create_graph=choices.create_graph,
            report=report,
            engine=choices.engine,
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
    if strategy.axis == "rows":
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
    linearization: ReverseLoop | ForwardLoop,
    primals: tuple[Tensor, ...],
    randomness: ReplayedRandomness,
) -> None:
    # A Hessian is symmetric: both products give the same.
    multiply = (
        linearization.pushforward
        if isinstance(linearization, ForwardLoop)
        else linearization.pullback
    )

    def product(vector: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return multiply(StackedVectors([part.unsqueeze(0) for part in vector]), 0, 1)

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
    assert isinstance(way, ReverseLoop)
    is_pushforward = reference.operation.product == "pushforward"
    space = reference.primals if is_pushforward else way.outputs
    ones = StackedVectors([torch.ones_like(tensor).detach()[None] for tensor in space])
    derivatives = (way.pushforward if is_pushforward else way.pullback)(ones, 0, 1)
    require_graph(name, derivatives, "the derivative for tensor")


def _operation(name: str) -> Operation:
    if name not in OPERATIONS:
        raise ValueError(f"operation={name!r}: valid are {', '.join(OPERATIONS)}")
    return OPERATIONS[name]


def _strategy(name: str, operation: str) -> type[ReverseLoop] | type[ForwardLoop]:
    if name not in STRATEGIES:
        raise ValueError(f"{operation}: strategy={name!r}: valid are {', '.join(STRATEGIES)}")
    strategy = STRATEGIES[name]
    if OPERATIONS[operation].product == "pullback" and strategy.axis == "columns":
        other = "hvp" if operation == "vhp" else "jvp"
        raise ValueError(
            f"{operation}: strategy={name!r} has no pullback; valid are 'reverse-loop' and "
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
