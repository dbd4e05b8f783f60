"""Linearize a function at a point for an operation, by a strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autodiff_core._block import Axis
from autodiff_core._engines.agreement import ReportFallback
from autodiff_core._errors import Fallback
from autodiff_core._linearization.adjoint import KnownPullback
from autodiff_core._linearization.arguments import Arguments, FlatFunction, Tensors, prepare_primals
from autodiff_core._linearization.forward import ForwardLoop, ForwardMode
from autodiff_core._linearization.functions import Direct, Gradient, Pointwise
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

_NO_PATH = (
    "autograd finds no path from any output to any input: the outputs are constant, or were "
    "detached, or computed without a gradient or outside of torch"
)


@dataclass(frozen=True)
class Linearized:
    """A function linearized at a point, for one operation.

    Attributes:
        operation: The operation.
        strategy: The strategy's name.
        inputs: The differentiated tensors as the user passed them, with their nesting.
        primals: Copies of the differentiated tensors, which require a gradient.
        outputs: The function's outputs with their nesting; differentiable with `create_graph`.
        auxiliary: The auxiliary value that the function returned; None without `has_aux`.
        linearization: The pullback and pushforward. Its outputs are the function's, or the
            gradient for the second-order operations.
        points: The number of points; None without a leading dimension over points.
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
    """The options of a linearization that all operations share.

    Attributes:
        strategy: The strategy's name, a key of `STRATEGIES`.
        create_graph: Whether derivatives must be differentiable.
        strict: Whether a structurally zero derivative is an error.
        argnums: The arguments to differentiate; None stands for all.
        has_aux: Whether the function returns a pair (output, auxiliary).
        points: Whether the inputs have a leading dimension over points.
        engine: The engine's name, one of `engines`, or ``auto``.
        check_modes: Whether forward mode is refused where reverse mode disagrees with it.
        check_second_order: Whether second derivatives through a custom backward are compared with
            differences of the gradient.
        tangent: A random tangent to compare the modes with, which the caller is going to push
            forward; None draws one.
        known: What forward mode is compared with, in place of an evaluation and a product.
    """

    strategy: str
    create_graph: bool = False
    strict: bool = False
    argnums: int | Sequence[int] | None = None
    has_aux: bool = False
    points: bool = False
    engine: str = "plain"
    check_modes: bool = True
    check_second_order: bool = True
    tangent: tuple[Tensor, ...] | None = None
    known: KnownPullback | None = None


def engines(operation: str, strategy: str) -> tuple[str, ...]:
    """Return the engines that are available for an operation by a strategy.

    Args:
        operation: ``jacobian``, ``hessian``, ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        strategy: ``reverse-loop``, ``vectorize``, ``forward-mode`` or ``forward-loop``.

    Returns:
        Values of the argument `engine` of `blocks`, the most widely applicable one first.

    Raises:
        ValueError: The operation or strategy does not exist, or they cannot be combined.
    """
    return _strategy(strategy, operation_named(operation)).engines


def linearize(
    name: str, func: Callable[..., Any], inputs: Any, choices: Choices, report: ReportFallback
) -> Linearized:
    """Linearize a function for an operation.

    Args:
        name: One of `OPERATIONS`.
        func: The function.
        inputs: Its argument, or the tuple of its arguments.
        choices: The strategy and the options.
        report: Called with each fallback that is taken.

    Raises:
        TypeError: Inputs or outputs that are not tensors.
        ValueError: An invalid strategy, or an invalid combination of options.
        RuntimeError: A function that is not scalar for a second-order operation, or a missing
            dependence that `strict` requires.
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
    flat = FlatFunction(func, arguments, name, has_aux=choices.has_aux)
    subject = _Subject(operation, arguments, flat, choices, report)
    if not choices.strict:
        return subject.linearized_by(strategy)
    if strategy.axis is Axis.ROWS:
        linearized = subject.linearized_by(strategy)
        _check_strict(linearized, name)
        return linearized
    # Only the graph of reverse mode shows which output depends on which input.
    with ReplayedRandomness(arguments.differentiated.leaves).replayed():
        reference = subject.linearized_by(ReverseLoop)
    _check_strict(reference, name)
    if choices.create_graph:
        _check_strict_derivative(reference, name)
    return subject.linearized_by(strategy)


@dataclass(frozen=True)
class _Subject:
    """A function at a point, to be linearized by one strategy or by several."""

    operation: Operation
    arguments: Arguments
    flat: FlatFunction
    choices: Choices
    report: ReportFallback

    def linearized_by(self, strategy: type[Linearization]) -> Linearized:
        """Return the function linearized by a strategy."""
        name, choices = self.operation.name, self.choices
        given = self.arguments.differentiated
        points = _points(given.leaves, name) if choices.points else None
        primals = prepare_primals(
            given.leaves, create_graph=choices.create_graph, axis=strategy.axis
        )
        direct: Direct | Pointwise = Direct(self.flat)
        if points is not None:
            constants = self.arguments.constants
            _require_points(points, constants, name)
            direct = Pointwise(direct, constants, strategy=strategy.name, report=self.report)
        randomness = ReplayedRandomness(primals)
        gradient = Gradient(direct, name, points=points)
        function = gradient if self.operation.is_second_order else direct
        linearization = strategy(
            Request(
                function,
                primals,
                choices.create_graph,
                self.report,
                choices.engine,
                choices.check_modes,
                choices.tangent,
                choices.known,
            )
        )
        structure = self.flat.structure
        assert structure is not None
        if self.flat.is_cut:
            self.report(Fallback(strategy.name, "zeros", _NO_PATH))
        if self.operation.is_second_order:
            _check_single_output(structure, name)
        if gradient.custom_functions and choices.check_second_order:
            _check_second_order(gradient, linearization, primals, randomness)
        value = linearization.outputs if gradient.value is None else (gradient.value,)
        return Linearized(
            self.operation,
            strategy.name,
            given,
            primals,
            Tensors(value, structure),
            self.flat.auxiliary,
            linearization,
            points,
            choices.create_graph,
        )


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
        with linearization.engine.waiting():
            return linearization.lines(StackedVectors([part[None] for part in vector]), 0, 1)

    precision = linearization.precision()
    names = gradient.custom_functions
    check_second_order(gradient, product, primals, randomness.replayed, precision, names)


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

    In forward mode tangents are connected to every factor, zeros included, so the check uses the
    derivative by reverse mode.
    """
    linearization = reference.linearization
    is_pushforward = reference.operation.product == "pushforward"
    space = reference.primals if is_pushforward else linearization.outputs
    ones = StackedVectors([torch.ones_like(tensor).detach()[None] for tensor in space])
    derivatives = (linearization.pushforward if is_pushforward else linearization.pullback)(
        ones, 0, 1
    )
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


def _require_points(points: int, constants: Sequence[Tensor], name: str) -> None:
    """Check that constants have a leading dimension over points as well.

    Raises:
        RuntimeError: One has not.
    """
    for each in constants:
        if each.shape[:1] != (points,):
            raise RuntimeError(
                f"{name}: with points=True constant arguments need the leading dimension {points} "
                f"of the others as well; the shape of one is {tuple(each.shape)}"
            )
