"""What the rules that lower operators to linear programs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call, Reference, UncapturableError
from autodiff_core._programs.steps import combination
from autodiff_core._tensors.tree import leaves_of_arguments

Lowering = Callable[[Builder, Call], Any]
"""Appends the steps of a call; gives the number of the last, None for zeros, or NotImplemented."""

RULES: dict[Any, Lowering] = {}
"""What to do for an operator, by its overload packet."""

_Partition = Callable[[Builder, Call], None]

PARTITIONS: dict[Any, _Partition] = {}
"""The same for operators that divide a tensor; they number all of their outputs themselves."""


def references(call: Call) -> list[Reference]:
    return [
        leaf
        for leaf in leaves_of_arguments((call.args, call.kwargs))
        if isinstance(leaf, Reference)
    ]


def check_zero(constant: Any) -> None:
    """Check that a constant that is added to something linear is zero."""
    if not (_is_zero(constant) if isinstance(constant, Tensor) else constant == 0):
        raise UncapturableError("the map is not linear: a constant is added")


def _is_zero(constant: Tensor) -> bool:
    return constant._is_zerotensor() or not bool((constant != 0).any())


def step_of(builder: Builder, reference: Reference) -> int:
    number = builder.numbers[reference.value]
    assert number is not None
    return number


def is_live(builder: Builder, argument: Any) -> bool:
    return isinstance(argument, Reference) and builder.numbers[argument.value] is not None


def rule(*packets: Any) -> Callable[[Lowering], Lowering]:
    def register(lowering: Lowering) -> Lowering:
        for packet in packets:
            RULES[packet] = lowering
        return lowering

    return register


def partition(*packets: Any) -> Callable[[_Partition], _Partition]:
    """Register the decorated function as the rule of operators that divide a tensor."""

    def register(lowering: _Partition) -> _Partition:
        PARTITIONS.update(dict.fromkeys(packets, lowering))
        return lowering

    return register


def output_of(call: Call) -> Reference:
    output = call.outputs[0]
    assert output is not None
    return output


def scaled(builder: Builder, call: Call, source: Reference, factor: Any) -> int:
    out = output_of(call)
    return builder.add(combination((step_of(builder, source),), (factor,), out.shape, out.dtype))


def only_first(builder: Builder, call: Call) -> bool:
    """Whether the first argument alone depends on the map's argument."""
    return is_live(builder, call.args[0]) and len(references(call)) == 1


def weighted_sum(builder: Builder, call: Call, terms: Sequence[Any], factors: Sequence[Any]) -> int:
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
