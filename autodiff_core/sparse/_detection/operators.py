"""Apply one recorded operator to dependencies, by its rule or conservatively."""

from __future__ import annotations

from typing import Any

from torch.utils._pytree import tree_leaves

# Each file registers its rules when it is imported.
from autodiff_core.sparse._detection import (
    convolutions,  # noqa: F401
    factorisations,  # noqa: F401
    matrix_products,  # noqa: F401
    reductions,  # noqa: F401
    scattering,  # noqa: F401
    transforms,  # noqa: F401
    transposed,  # noqa: F401
)
from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.elementwise import elementwise, is_elementwise
from autodiff_core.sparse._detection.movement import is_movement, move
from autodiff_core.sparse._detection.registry import RULES, Call, independent, shape_of
from autodiff_core.sparse._detection.steps import Step


def apply(step: Step, arguments: Any, keywords: Any, context: Context) -> Any:
    """Return what the results of a step depend on.

    Args:
        step: The step.
        arguments: The values of its positional arguments.
        keywords: The values of its keyword arguments.
        context: What rules share.
    """
    call = Call(step.target, arguments, keywords, step, context)
    if not call.is_differentiable:
        return independent(step)
    if is_movement(call):
        return move(call)
    if call.name in RULES:
        found = RULES[call.name](call)
        if found is not NotImplemented:
            return found
    elif is_elementwise(call):
        operands = [*arguments, *keywords.values()]
        results = [elementwise(operands, shape_of(meta), context) for meta in step.metas]
        return results[0] if step.has_one_result else results
    return _conservative(call)


def _conservative(call: Call) -> Any:
    """Return results every element of which depends on everything that the operator reads."""
    call.context.conservative.add((call.name, call.step.place))
    operands = tree_leaves((call.arguments, call.keywords))
    shapes = [shape_of(meta) for meta in call.metas]
    results = [Traced(shape, call.context.everything(operands, shape)) for shape in shapes]
    return results[0] if call.has_one_result else results
