"""The registry of rules that lower operators to steps, and what the rules share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference, UncapturableError
from autodiff_core._programs.steps import combination

Lowering = Callable[[Builder, Call], Any]
"""Appends a call's steps; returns the last one's number, None for zeros, or NotImplemented."""

RULES: dict[Any, Lowering] = {}
"""The rule of each operator, by its overload packet."""

SEVERAL: dict[Any, Lowering] = {}
"""The rules of operators with several outputs, all of which these number, or NotImplemented."""


@dataclass(frozen=True)
class Padding:
    """A note that a step pads what another gives with zeros, along one dimension.

    Attributes:
        source: The number of the other step.
        shape: The shape of its result, which may lack the dimension where its length is one.
        dim: The dimension.
        start: Where the result begins.
    """

    source: int
    shape: tuple[int, ...]
    dim: int
    start: int


@dataclass(frozen=True)
class Part:
    """A note that a step gives a range of positions of another one along a dimension."""

    source: int
    dim: int
    taken: range


def check_zero(constant: Any) -> None:
    """Check that a constant that is added to a value is zero.

    Raises:
        UncapturableError: It is not, so the map is not linear.
    """
    if not (_is_zero(constant) if isinstance(constant, Tensor) else constant == 0):
        raise UncapturableError("the map is not linear: a constant is added")


def _is_zero(constant: Tensor) -> bool:
    return constant._is_zerotensor() or not bool((constant != 0).any())


def step_of(builder: Builder, reference: Reference) -> int:
    """Return the number of the step that computes a value, which must not be zero."""
    number = builder.numbers[reference.value]
    assert number is not None
    return number


def is_live(builder: Builder, argument: Any) -> bool:
    """Return whether an argument is a value that is not known to be zero."""
    return isinstance(argument, Reference) and builder.numbers[argument.value] is not None


def rule(*packets: Any) -> Callable[[Lowering], Lowering]:
    """Register the decorated function as the rule of operators."""

    def register(lowering: Lowering) -> Lowering:
        for packet in packets:
            RULES[packet] = lowering
        return lowering

    return register


def rule_of_several(*packets: Any) -> Callable[[Lowering], Lowering]:
    """Register the decorated function as the rule of operators with several outputs."""

    def register(lowering: Lowering) -> Lowering:
        SEVERAL.update(dict.fromkeys(packets, lowering))
        return lowering

    return register


def output_of(call: Call) -> Reference:
    """Return the first output of a call, which must be a tensor."""
    output = call.outputs[0]
    assert output is not None
    return output


def scaled(builder: Builder, call: Call, source: Reference, factor: Any) -> int:
    """Append the product of a value and a constant; return the step's number."""
    out = output_of(call)
    return builder.add(combination((step_of(builder, source),), (factor,), out.shape, out.dtype))


def only_first(builder: Builder, call: Call) -> bool:
    """Return whether, of all arguments, only the first depends on the map's argument."""
    return is_live(builder, call.args[0]) and len(call.references) == 1


def weighted_sum(builder: Builder, call: Call, terms: Sequence[Any], factors: Sequence[Any]) -> int:
    """Append the sum of terms times constants; return the step's number.

    Raises:
        UncapturableError: A constant term is not zero.
    """
    sources, coefficients = [], []
    for term, factor in zip(terms, factors, strict=True):
        if not isinstance(term, Reference):
            check_zero(term)
        elif builder.numbers[term.value] is not None:
            sources.append(step_of(builder, term))
            is_one = not isinstance(factor, Tensor) and factor == 1
            coefficients.append(None if is_one else factor)
    out = output_of(call)
    return builder.add(combination(sources, coefficients, out.shape, out.dtype))
