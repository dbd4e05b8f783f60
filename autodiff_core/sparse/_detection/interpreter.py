"""Run a recording on dependencies instead of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from autodiff_core._errors import first_line, is_out_of_memory
from autodiff_core.sparse._detection.dependence import Context, Traced, identity
from autodiff_core.sparse._detection.index_sets import Layer
from autodiff_core.sparse._detection.operators import apply
from autodiff_core.sparse._detection.places import named
from autodiff_core.sparse._detection.steps import Constant, Recording, Ref, Step
from autodiff_core.sparse._errors import DetectionError


def interpret(recording: Recording, inputs: Sequence[Tensor], context: Context) -> list[Any]:
    """Return the outputs as `Traced` tensors or, if they are constant, as tensors.

    Args:
        recording: What was recorded.
        inputs: The tensors whose elements are numbered.
        context: The state that rules share.
    """
    numbered: list[Any] = []
    offset = 0
    for primal in inputs:
        index = torch.arange(offset, offset + primal.numel(), dtype=context.sets.dtype)
        numbered.append(Traced(tuple(primal.shape), (Layer(index.view(primal.shape)),)))
        offset += primal.numel()
    values: dict[int, Any] = {}
    constants: dict[int, Tensor] = {}
    same: dict[Any, Any] = {}

    def value(each: Any) -> Any:
        if isinstance(each, Constant):
            # Index maps live on the CPU, and so must the indices that they meet.
            return constants.setdefault(id(each), each.tensor.detach().cpu())
        if not isinstance(each, Ref):
            return each
        if each.step is None:
            return numbered[each.index]
        results = values[id(each.step)]
        return results if each.step.has_one_result else results[each.index]

    for step in _needed(recording):
        context.sets.check_time()
        arguments, keywords = tree_map(value, step.arguments), tree_map(value, step.keywords)
        key = (step.target, identity(arguments), identity(keywords))
        if key not in same:
            same[key] = (_applied(step, arguments, keywords, context), arguments, keywords)
        values[id(step)] = same[key][0]
    return [value(output) for output in recording.outputs]


def _applied(step: Step, arguments: Any, keywords: Any, context: Context) -> Any:
    try:
        return apply(step, arguments, keywords, context)
    except DetectionError:
        raise
    # A rule that does not foresee its arguments is no reason for an end without a matrix.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        (name,) = named([(step.target.overloadpacket.__name__, step.place)])
        raise DetectionError(f"the rule of {name} fails: {first_line(error)}") from error


def _needed(recording: Recording) -> list[Step]:
    """Return the steps that have an influence on the outputs, in order."""
    needed = {id(each.step) for each in recording.outputs if isinstance(each, Ref)}
    found = []
    for step in reversed(recording.steps):
        if id(step) in needed:
            found.append(step)
            leaves = tree_leaves((step.arguments, step.keywords))
            needed.update(id(each.step) for each in leaves if isinstance(each, Ref))
    return found[::-1]
