"""Sums by index in traces that run many times, by a kernel that visits each target once.

Gradients of functions that gather, as the energy of a list of neighbours, add many terms to few
targets. The order in which the terms belong to the targets is computed once, when the trace is
prepared; then each target is the sum of one segment. torch's kernels read and write a target for
each term, and torch's compiler (2.13) adds those of all vectors to one where the targets are an
expanded tensor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Node

_aten = torch.ops.aten
_DTYPES = (torch.float32, torch.float64)


@torch.library.custom_op("autodiff_core::segment_sum", mutates_args=())
def segment_sum(
    target: Tensor, values: Tensor, order: Tensor, offsets: Tensor, factor: float
) -> Tensor:
    """Return targets plus a factor times the sums of their segments of values.

    Args:
        target: Shape (outer, targets, inner), float32 or float64 on a CPU.
        values: Shape (outer, terms, inner), of the same dtype.
        order: The number of each term, sorted by target, int64 of shape (terms,).
        offsets: Where the segment of each target begins in `order`, and where the last ends, int64
            of shape (targets + 1,).
        factor: The factor.
    """
    total = target.clone(memory_format=torch.contiguous_format)
    terms, numbers, places, sums = (
        each.detach().numpy() for each in (values.contiguous(), order, offsets, total)
    )
    _add_segments(terms, numbers, places, sums, factor)
    return total


@segment_sum.register_fake
def _(target: Tensor, values: Tensor, order: Tensor, offsets: Tensor, factor: float) -> Tensor:
    return torch.empty_like(target, memory_format=torch.contiguous_format)


@njit(cache=True)
def _add_segments(
    values: NDArray[np.floating],
    order: NDArray[np.int64],
    offsets: NDArray[np.int64],
    total: NDArray[np.floating],
    factor: float,
) -> None:
    outer, targets, inner = total.shape
    for a in range(outer):
        for target in range(targets):
            for place in range(offsets[target], offsets[target + 1]):
                term = order[place]
                for b in range(inner):
                    total[a, target, b] += factor * values[a, term, b]


def sum_by_segments(traced: GraphModule) -> None:
    """Replace sums by an index that is the same at all points, in a trace on a CPU, in place.

    Args:
        traced: The trace, by `make_fx`.
    """
    for node in list(traced.graph.nodes):
        if node.op != "call_function":
            continue
        found = _sum_of(traced, node)
        if found is None:
            continue
        target, dim, index, values = found
        factor = 1.0
        # A compiled kernel would write the terms and their negatives, for the two ends of a pair.
        if values.target is _aten.neg.default:
            (values,), factor = values.all_input_nodes, -1.0
        shape = target.meta["val"].shape
        outer, count, inner = math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
        numbers = index.reshape(-1) % count
        offsets = torch.bincount(numbers, minlength=count).cumsum(0)
        constants = {
            "order": torch.argsort(numbers, stable=True),
            "offsets": torch.cat([offsets.new_zeros(1), offsets]),
        }
        graph = traced.graph
        with graph.inserting_before(node):
            places = []
            for name, constant in constants.items():
                traced.register_buffer(f"{node.name}_{name}", constant)
                places.append(graph.get_attr(f"{node.name}_{name}"))
            terms = [*shape[:dim], *index.shape, *shape[dim + 1 :]]
            spread = graph.call_function(_aten.expand.default, (values, terms))
            stacks = [
                graph.call_function(_aten.reshape.default, (each, [outer, length, inner]))
                for each, length in ((target, count), (spread, len(numbers)))
            ]
            total = graph.call_function(
                torch.ops.autodiff_core.segment_sum.default, (*stacks, *places, factor)
            )
            shaped = graph.call_function(_aten.reshape.default, (total, list(shape)))
        node.replace_all_uses_with(shaped)
        graph.erase_node(node)
    traced.recompile()


def _sum_of(traced: GraphModule, node: Node) -> tuple[Node, int, Tensor, Node] | None:
    """Return target, dimension, index and values of a sum by a known index; else None."""
    if node.kwargs:
        return None
    arguments: list[Any] = [*node.args]
    # What must have the shape of the targets but for the number of terms.
    aligned: tuple[Node, ...] = ()
    if node.target is _aten.index_put.default and len(arguments) > 3 and arguments[3]:
        target, places, values = arguments[:3]
        dims = [dim for dim, each in enumerate(places) if each is not None]
        if len(dims) != 1:
            return None
        dim, index = dims[0], _constant(traced, places[dims[0]])
    elif node.target is _aten.index_add.default:
        target, dim, place, values = arguments
        index = _constant(traced, place)
    elif node.target is _aten.scatter_add.default:
        target, dim, place, values = arguments
        index = _along(_constant(traced, place), dim)
        aligned = (place, values)
    else:
        return None
    like = target.meta["val"]
    if index is None or index.dtype != torch.int64 or not like.dim() or not index.numel():
        return None
    dim %= like.dim()
    is_known = like.dtype in _DTYPES and like.device.type == "cpu"
    if not is_known or values.meta["val"].dtype != like.dtype:
        return None
    terms = [*like.shape[:dim], index.numel(), *like.shape[dim + 1 :]]
    if any([*each.meta["val"].shape] != terms for each in aligned):
        return None
    return target, dim, index, values


def _along(index: Tensor | None, dim: int) -> Tensor | None:
    """Return an index that is the same at all places of other dimensions, of shape (terms,)."""
    if index is None or not index.numel() or not index.dim():
        return None
    line = index.movedim(dim, -1).reshape(-1, index.shape[dim])
    return line[0] if bool((line == line[0]).all()) else None


def _constant(traced: GraphModule, node: Any) -> Tensor | None:
    """Return a tensor that is the same at all points; None where it is not."""
    if not isinstance(node, Node):
        return None
    if node.op == "get_attr":
        found = getattr(traced, str(node.target))
        return found if isinstance(found, Tensor) else None
    if node.op != "call_function":
        return None
    known = {each: _constant(traced, each) for each in node.all_input_nodes}
    if not known or any(each is None for each in known.values()):
        return None
    given, named = torch.fx.map_arg((node.args, node.kwargs), known.__getitem__)
    target: Any = node.target
    return target(*given, **named)
