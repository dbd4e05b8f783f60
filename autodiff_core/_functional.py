"""The six operations with the signatures and results of `torch.autograd.functional`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from autodiff_core._assembly import assemble
from autodiff_core._errors import Fallback, FallbackWarning
from autodiff_core._linearization.linearize import Choices, Linearized, linearize
from autodiff_core._linearization.nesting import recording
from autodiff_core._linearization.strict import require_graph
from autodiff_core._stream import BlockStream, stacked_vectors


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
    *,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    points: bool = False,
) -> Any:
    """Return the Jacobian of a function.

    Args:
        func: Called with the tensors of a tuple of inputs as its arguments; returns a tensor, a
            tuple of tensors, or another nested structure of tensors.
        inputs: A tensor, a tuple of arguments, or another nested structure of tensors.
        create_graph: Whether the result must be differentiable.
        strict: Whether an output that is independent of an input is an error; else the
            derivative is zero.
        vectorize: Whether a chunk of rows or columns is computed at once; valid only with the
            strategies of `torch.autograd.functional`.
        strategy: ``reverse-mode`` or ``forward-mode`` (with or without `vectorize`), or one of
            this package's own names ``reverse-loop``, ``vectorize``, ``forward-loop``.
        chunk_size: How many rows or columns are computed at once; None chooses at most 64 of
            them and 64 MiB.
        argnums: Which arguments to differentiate; None stands for all.
        has_aux: Whether `func` returns a pair (output, auxiliary).
        points: Whether all inputs have a leading dimension over points; the Jacobian is computed
            at each of them.

    Returns:
        A structure nested like the outputs, in which each output is replaced by a structure
        nested like the inputs, in which each input is replaced by a tensor of shape
        output.shape + input.shape (with a leading dimension over points). With `has_aux` a pair
        of that and the auxiliary value.

    Raises:
        TypeError: Inputs or outputs that are not tensors.
        AssertionError: An unknown strategy.
        RuntimeError: A dependence that `strict` requires is missing.
    """
    choices = Choices(
        _strategy("jacobian", "strategy", strategy, vectorize),
        create_graph=create_graph,
        strict=strict,
        argnums=argnums,
        has_aux=has_aux,
        points=points,
    )
    return _matrix("jacobian", func, inputs, choices, chunk_size)


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
    *,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    points: bool = False,
) -> Any:
    """Return the Hessian of a scalar function: the Jacobian of its gradient by reverse mode.

    Args:
        func: Returns one tensor with one element.
        inputs: A tensor, a tuple of arguments, or another nested structure of tensors.
        create_graph: Whether the result must be differentiable.
        strict: Whether an output or a gradient that is independent of an input is an error.
        vectorize: As for `jacobian`.
        outer_jacobian_strategy: The strategy that differentiates the gradient, with the values
            of `strategy` of `jacobian`.
        chunk_size: As for `jacobian`.
        argnums: As for `jacobian`.
        has_aux: As for `jacobian`.
        points: As for `jacobian`.

    Returns:
        The nesting of the inputs, twice, with tensors of shape input.shape + input.shape.

    Raises:
        TypeError: Inputs or outputs that are not tensors.
        AssertionError: An unknown strategy.
        RuntimeError: A function that is not scalar, or a missing dependence that `strict`
            requires.
    """
    choices = Choices(
        _strategy("hessian", "outer_jacobian_strategy", outer_jacobian_strategy, vectorize),
        create_graph=create_graph,
        strict=strict,
        argnums=argnums,
        has_aux=has_aux,
        points=points,
    )
    return _matrix("hessian", func, inputs, choices, chunk_size)


def vjp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    strategy: str = "reverse-loop",
    stacked: bool = False,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
) -> Any:
    """Return the product of a vector with the Jacobian.

    Args:
        func: As for `jacobian`.
        inputs: As for `jacobian`.
        v: The vector, nested like the outputs; optional for a single output with one
            element.
        create_graph: Whether value and product must be differentiable.
        strict: Whether an input on which no output depends is an error.
        strategy: ``reverse-loop`` or ``vectorize``.
        stacked: Whether the tensors of `v` have a leading dimension over many vectors.
        chunk_size: How many of the vectors are multiplied at once; None chooses at most 64 of
            them and 64 MiB.
        argnums: As for `jacobian`.
        has_aux: As for `jacobian`.

    Returns:
        The pair (value, product), the product nested like the inputs, with a leading dimension
        over vectors if `stacked`. With `has_aux` the auxiliary value comes third.

    Raises:
        TypeError: Inputs, outputs or vectors that are not tensors.
        ValueError: A strategy without this product.
        RuntimeError: Vectors of the wrong number or size, or a missing dependence that `strict`
            requires.
    """
    choices = Choices(
        strategy, create_graph=create_graph, strict=strict, argnums=argnums, has_aux=has_aux
    )
    return _product("vjp", func, inputs, v, choices, stacked=stacked, chunk_size=chunk_size)


def jvp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    strategy: str = "reverse-loop",
    stacked: bool = False,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
) -> Any:
    """Return the product of the Jacobian with a vector.

    Args:
        func: As for `jacobian`.
        inputs: As for `jacobian`.
        v: The vector, nested like the inputs; optional for a single input with one
            element.
        create_graph: Whether value and product must be differentiable.
        strict: Whether an input on which no output depends is an error.
        strategy: ``forward-mode`` or ``forward-loop`` (dual numbers), ``reverse-loop`` or
            ``vectorize`` (the double-backward trick).
        stacked: As for `vjp`.
        chunk_size: As for `vjp`.
        argnums: As for `jacobian`.
        has_aux: As for `jacobian`.

    Returns:
        The pair (value, product), the product nested like the outputs, with a leading dimension
        over vectors if `stacked`. With `has_aux` the auxiliary value comes third.

    Raises:
        TypeError: Inputs, outputs or vectors that are not tensors.
        ValueError: An unknown strategy.
        RuntimeError: Vectors of the wrong number or size, or a missing dependence that `strict`
            requires.
        DoubleBackwardError: The double-backward trick gives wrong numbers for this function.
        MissingForwardDerivativeError: An operator has no forward derivative.
    """
    choices = Choices(
        strategy, create_graph=create_graph, strict=strict, argnums=argnums, has_aux=has_aux
    )
    return _product("jvp", func, inputs, v, choices, stacked=stacked, chunk_size=chunk_size)


def vhp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    strategy: str = "reverse-loop",
    stacked: bool = False,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
) -> Any:
    """Return the product of a vector with the Hessian of a scalar function.

    Args:
        func: Returns one tensor with one element.
        inputs: As for `jacobian`.
        v: The vector, nested like the inputs; optional for a single input with one
            element.
        create_graph: Whether value and product must be differentiable.
        strict: Whether a Hessian that is structurally zero is an error.
        strategy: ``reverse-loop`` or ``vectorize``.
        stacked: As for `vjp`.
        chunk_size: As for `vjp`.
        argnums: As for `jacobian`.
        has_aux: As for `jacobian`.

    Returns:
        The pair (value, product), the product nested like the inputs, with a leading dimension
        over vectors if `stacked`. With `has_aux` the auxiliary value comes third.

    Raises:
        TypeError: Inputs, outputs or vectors that are not tensors.
        ValueError: A strategy without this product.
        RuntimeError: A function that is not scalar, vectors of the wrong number or size, or a
            missing dependence that `strict` requires.
    """
    choices = Choices(
        strategy, create_graph=create_graph, strict=strict, argnums=argnums, has_aux=has_aux
    )
    return _product("vhp", func, inputs, v, choices, stacked=stacked, chunk_size=chunk_size)


def hvp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    strategy: str = "reverse-loop",
    stacked: bool = False,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
) -> Any:
    """Return the product of the Hessian of a scalar function with a vector.

    Args:
        func: Returns one tensor with one element.
        inputs: As for `jacobian`.
        v: The vector, nested like the inputs; optional for a single input with one
            element.
        create_graph: Whether value and product must be differentiable.
        strict: Whether a Hessian that is structurally zero is an error.
        strategy: ``forward-mode`` or ``forward-loop`` (forward over reverse), ``reverse-loop``
            or ``vectorize`` (the double-backward trick over reverse).
        stacked: As for `vjp`.
        chunk_size: As for `vjp`.
        argnums: As for `jacobian`.
        has_aux: As for `jacobian`.

    Returns:
        The pair (value, product), the product nested like the inputs, with a leading dimension
        over vectors if `stacked`. With `has_aux` the auxiliary value comes third.

    Raises:
        TypeError: Inputs, outputs or vectors that are not tensors.
        ValueError: An unknown strategy.
        RuntimeError: A function that is not scalar, vectors of the wrong number or size, or a
            missing dependence that `strict` requires.
        DoubleBackwardError: The double-backward trick gives wrong numbers for this function.
        MissingForwardDerivativeError: An operator has no forward derivative.
    """
    choices = Choices(
        strategy, create_graph=create_graph, strict=strict, argnums=argnums, has_aux=has_aux
    )
    return _product("hvp", func, inputs, v, choices, stacked=stacked, chunk_size=chunk_size)


def _matrix(
    operation: str,
    func: Callable[..., Any],
    inputs: Any,
    choices: Choices,
    chunk_size: int | None,
) -> Any:
    fallbacks: list[Fallback] = []
    with recording(create_graph=choices.create_graph):
        linearized = linearize(operation, func, inputs, choices, fallbacks.append)
        entries = assemble(BlockStream(linearized, [], chunk_size=chunk_size))
    _warn(fallbacks)
    if choices.strict and choices.create_graph:
        for line in entries:
            require_graph(operation, line, f"the {operation} for input")
    lines = [linearized.inputs.nest(line) for line in entries]
    outer = linearized.inputs if linearized.operation.is_second_order else linearized.outputs
    result = outer.nest(lines)
    return (result, linearized.auxiliary) if choices.has_aux else result


def _product(
    operation: str,
    func: Callable[..., Any],
    inputs: Any,
    v: Any,
    choices: Choices,
    *,
    stacked: bool,
    chunk_size: int | None,
) -> Any:
    fallbacks: list[Fallback] = []
    with recording(create_graph=choices.create_graph):
        linearized = linearize(operation, func, inputs, choices, fallbacks.append)
        given = _one(linearized, operation) if v is None else v
        vectors = stacked_vectors(given, linearized, operation, stacked=stacked)
        stream = BlockStream(linearized, [], vectors=vectors, chunk_size=chunk_size)
        is_pushforward = linearized.operation.product == "pushforward"
        targets = linearized.linearization.outputs if is_pushforward else linearized.primals
        none = tuple(target.new_empty(0, target.numel()) for target in targets)
        pieces = [block.pieces for block in stream] or [none]
        products = [
            torch.cat(parts).reshape((len(vectors), *shape))
            for parts, shape in zip(zip(*pieces, strict=True), stream.columns.shapes, strict=True)
        ]
        if not stacked:
            products = [product[0] for product in products]
    _warn(fallbacks)
    if choices.strict and choices.create_graph:
        require_graph(operation, products, "the product for tensor")
    outputs = linearized.outputs
    value = outputs.nest(outputs.leaves) if choices.create_graph else stream.value
    target = outputs if linearized.operation.yields_outputs else linearized.inputs
    result = (value, target.nest(products))
    return (*result, linearized.auxiliary) if choices.has_aux else result


def _one(linearized: Linearized, operation: str) -> tuple[Tensor, ...]:
    """Return the default vector: a one, valid if there is a single element."""
    is_over_outputs = linearized.operation.multiplies_outputs
    tensors = linearized.linearization.outputs if is_over_outputs else linearized.primals
    if len(tensors) != 1 or tensors[0].numel() != 1:
        what = "output" if is_over_outputs else "input"
        raise RuntimeError(
            f"{operation}: v is missing; it may be left out only for a single {what} with one "
            f"element, and here the {what}s hold {sum(tensor.numel() for tensor in tensors)}"
        )
    return (torch.ones_like(tensors[0]).detach(),)


def _strategy(operation: str, argument: str, strategy: str, vectorize: bool) -> str:
    """Return this package's strategy for the two arguments that torch has."""
    names = {
        ("reverse-mode", False): "reverse-loop",
        ("reverse-mode", True): "vectorize",
        ("forward-mode", False): "forward-loop",
        ("forward-mode", True): "forward-mode",
    }
    if (strategy, vectorize) in names:
        return names[strategy, vectorize]
    if strategy in ("reverse-loop", "vectorize", "forward-loop"):
        return strategy
    # torch.autograd.functional raises this type.
    raise AssertionError(
        f"{operation}: {argument}={strategy!r}: valid are reverse-mode, forward-mode, "
        "reverse-loop, vectorize and forward-loop"
    )


def _warn(fallbacks: Sequence[Fallback]) -> None:
    for fallback in fallbacks:
        # Point at the user's line, three frames up through _matrix or _product.
        warnings.warn(FallbackWarning(str(fallback)), stacklevel=4)
