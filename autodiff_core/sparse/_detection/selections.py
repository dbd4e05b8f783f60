"""Operators that select by values: by the positions that they select at the point.

Each is expressed by operators with exact rules and constant indices or masks. The derivatives are
those of torch: a position that is selected passes its derivative on, and extrema over dimensions
divide theirs evenly among equal elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import enable_reentrant_dispatch

from autodiff_core.sparse._detection.grids import sampled

Expansion = Callable[[Any, Any, dict[str, Any]], Any]
"""Returns the result of an operator, given the recorder, the operator and its arguments."""

EXPANSIONS: dict[str, Expansion] = {}


def expansion(*names: str) -> Callable[[Expansion], Expansion]:
    """Register the decorated function for operators."""

    def register(function: Expansion) -> Expansion:
        EXPANSIONS.update(dict.fromkeys(names, function))
        return function

    return register


def bound(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operator by name, with the defaults of its schema."""
    schema = func._schema.arguments
    found = {each.name: each.default_value for each in schema if each.has_default_value()}
    return found | dict(zip((each.name for each in schema), args, strict=False)) | kwargs


@expansion(
    "cummax", "cummin", "kthvalue", "max", "median", "min", "mode", "nanmedian", "sort", "topk"
)
def _by_positions(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    """Return values and their positions; without a dimension, those of all equal elements."""
    name, operand = func.overloadpacket.__name__, given["self"]
    result = _run(func, given)
    if isinstance(result, Tensor):
        if "other" in given:
            return NotImplemented
        return _among_equals(recorder, name, operand, result, list(range(operand.dim())), False)
    values, positions = result
    recorder.freeze(name, f"positions of shape {tuple(positions.shape)}")
    with recorder.freezing(True):
        if operand.dim() == 0:
            recorded = operand.clone()
        else:
            dim = given["dim"] % operand.dim()
            is_dropped = positions.dim() < operand.dim()
            at = positions.unsqueeze(dim) if is_dropped else positions
            recorded = operand.gather(dim, at)
            recorded = recorded.squeeze(dim) if is_dropped else recorded
    return recorder.known_as(values, recorded), positions


@expansion("amax", "amin")
def _extremum(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    operand, result = given["self"], _run(func, given)
    dims = [dim % max(operand.dim(), 1) for dim in given["dim"]] if operand.dim() else []
    name = func.overloadpacket.__name__
    dims = dims or list(range(operand.dim()))
    return _among_equals(recorder, name, operand, result, dims, given["keepdim"])


@expansion("aminmax")
def _extrema(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    del func
    operand, dim = given["self"], given["dim"]
    dims = [] if dim is None else [dim]
    with recorder.freezing(True):
        least = operand.amin(dims, given["keepdim"])
        return least, operand.amax(dims, given["keepdim"])


def _among_equals(
    recorder: Any, name: str, operand: Tensor, result: Tensor, dims: list[int], keeps: bool
) -> Tensor:
    kept = result
    if not keeps:
        for dim in sorted(dims):
            kept = kept.unsqueeze(dim)
    chosen = operand == kept
    recorder.freeze(name, f"{int(chosen.sum())} positions")
    with recorder.freezing(True):
        summands = torch.where(chosen, operand, torch.zeros_like(operand))
        recorded = summands.sum(dims, keeps) if dims else summands
    return recorder.known_as(result, recorded)


@expansion(
    "adaptive_max_pool2d", "adaptive_max_pool3d", "fractional_max_pool2d", "fractional_max_pool3d",
    "max_pool2d_with_indices", "max_pool3d_with_indices",
)  # fmt: skip
def _pooled(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    name, operand = func.overloadpacket.__name__, given["self"]
    values, positions = _run(func, given)
    dims = int(name[name.index("pool") + 4])
    recorder.freeze(name, f"positions of shape {tuple(positions.shape)}")
    with recorder.freezing(True):
        recorded = operand.flatten(-dims).gather(-1, positions.flatten(-dims))
        recorded = recorded.view(positions.shape)
    return recorder.known_as(values, recorded), positions


@expansion(
    "adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward",
    "fractional_max_pool2d_backward", "fractional_max_pool3d_backward",
    "max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward",
)  # fmt: skip
def _pooled_backward(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    name, operand, cotangent = func.overloadpacket.__name__, given["self"], given["grad_output"]
    dims = int(name[name.index("pool") + 4])
    result = _run(func, given)
    with recorder.freezing(True):
        flat = torch.zeros_like(operand).flatten(-dims)
        positions = given["indices"].flatten(-dims)
        recorded = flat.scatter_add(-1, positions, cotangent.flatten(-dims)).view(operand.shape)
    return recorder.known_as(result, recorded)


@expansion("scatter_reduce", "index_reduce")
def _scattered(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    """Return a reduction into places that indices name, of those summands that reach it."""
    result = _run(func, given)
    base, dim, index = given["self"], given["dim"], given["index"]
    source = given["src"] if "src" in given else given["source"]
    if recorder.is_tracked(index):
        return NotImplemented
    name = func.overloadpacket.__name__
    with recorder.freezing(True):
        if name == "index_reduce" and base.dim():
            view = [1] * base.dim()
            view[dim] = -1
            index = index.view(view).expand(source.shape)
        if base.dim() == 0:
            base, index, source = base.view(1), index.view(1), source.view(1)
        source = source[tuple(slice(0, size) for size in index.shape)]
        if not given["include_self"]:
            base = base.scatter(dim, index, 0.0)
        if given["reduce"] in ("amax", "amin"):
            reached = result.view(base.shape)
            is_source, is_base = source == reached.gather(dim, index), base == reached
            if not given["include_self"]:
                is_base = is_base.scatter(dim, index, False)
            source = torch.where(is_source, source, torch.zeros_like(source))
            base = torch.where(is_base, base, torch.zeros_like(base))
        recorded = base.scatter_add(dim, index, source).view(result.shape)
    return recorder.known_as(result, recorded)


@expansion("clamp", "fmax", "fmin", "maximum", "minimum")
def _chosen(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    """Return of several operands the one that decides; equal ones both do."""
    name, first = func.overloadpacket.__name__, given["self"]
    if name == "clamp":
        low, high = given["min"], given["max"]
        if func._overloadname != "Tensor" or low is None or high is None:
            return NotImplemented
    else:
        low = high = given["other"]
    result = _run(func, given)
    with recorder.freezing(True):
        if name == "clamp":
            recorded = torch.where(first < low, low, torch.where(first > high, high, first))
            recorded = torch.where(low > high, high, recorded)
        else:
            decides = first > low if name in ("fmax", "maximum") else first < low
            recorded = torch.where(decides, first, low)
            recorded = torch.where(first == low, first + low, recorded)
    return recorder.known_as(result, recorded)


@expansion("put")
def _put(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    operand, source = given["self"], given["source"]
    result = _run(func, given)
    with recorder.freezing(True):
        places = (given["index"].reshape(-1),)
        flat = operand.reshape(-1).index_put(places, source.reshape(-1), given["accumulate"])
    return recorder.known_as(result, flat.view(operand.shape))


@expansion("masked_scatter_backward")
def _unmasked(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    """Return what a mask selects, in order, and zeros after it."""
    cotangent, mask = given["grad_output"], given["mask"]
    result = _run(func, given)
    with recorder.freezing(True):
        selected = cotangent.masked_select(mask)[: result.numel()]
        padded = torch.nn.functional.pad(selected, (0, result.numel() - len(selected)))
    return recorder.known_as(result, padded.view(result.shape))


@expansion("_trilinear")
def _trilinear(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    """Return a sum over dimensions of a product of three tensors."""
    result = _run(func, given)
    with recorder.freezing(True):
        factors = []
        for number in (1, 2, 3):
            factor = given[f"i{number}"]
            for dim in sorted(given[f"expand{number}"]):
                factor = factor.unsqueeze(dim)
            factors.append(factor)
        recorded = (factors[0] * factors[1] * factors[2]).sum(given["sumdim"])
    return recorder.known_as(result, recorded.view(result.shape))


@expansion("_pdist_forward")
def _pair_distances(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    operand = given["self"]
    result = _run(func, given)
    first, second = torch.triu_indices(len(operand), len(operand), 1, device=operand.device)
    with recorder.freezing(True):
        recorded = (operand[first] + operand[second]).sum(-1)
    return recorder.known_as(result, recorded)


@expansion("_embedding_bag", "_embedding_bag_forward_only")
def _bags(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    """Return sums or means over bags of rows."""
    results = _run(func, given)
    weights, indices, offsets = (given[name] for name in ("weight", "indices", "offsets"))
    if given["mode"] == 2 or given["padding_idx"] >= 0 or recorder.is_tracked(indices):
        return NotImplemented
    places = torch.arange(len(indices), device=indices.device)
    bag = torch.searchsorted(offsets, places, right=True) - 1
    with recorder.freezing(True):
        rows = weights[indices]
        if given["per_sample_weights"] is not None:
            rows = rows * given["per_sample_weights"].unsqueeze(1)
        recorded = torch.zeros_like(results[0]).index_add(0, bag, rows)
    return recorder.known_as(results[0], recorded), *results[1:]


@expansion("segment_reduce")
def _segments(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    """Return a reduction of consecutive segments."""
    operand, axis = given["data"], given["axis"]
    result = _run(func, given)
    index = _segment_of_each(given, operand)
    if index is None or (given["initial"] is not None and given["reduce"] == "prod"):
        return NotImplemented
    with recorder.freezing(True):
        if given["reduce"] in ("max", "min"):
            chosen = operand == result.detach().gather(axis, index)
            recorder.freeze("segment_reduce", f"{int(chosen.sum())} positions")
            operand = torch.where(chosen, operand, torch.zeros_like(operand))
        empty = torch.zeros_like(result)
        recorded = empty.scatter_add(axis, index, operand)
    return recorder.known_as(result, recorded)


@expansion("_segment_reduce_backward")
def _segments_backward(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    operand, axis = given["data"], given["axis"]
    result = _run(func, given)
    index = _segment_of_each(given, operand)
    if index is None:
        return NotImplemented
    with recorder.freezing(True):
        recorded = given["grad"].gather(axis, index)
        if given["reduce"] == "prod":
            recorded = recorded * given["output"].gather(axis, index) * operand
        if given["reduce"] in ("max", "min"):
            chosen = operand == given["output"].gather(axis, index)
            recorded = torch.where(chosen, recorded, torch.zeros_like(recorded))
    return recorder.known_as(result, recorded)


def _segment_of_each(given: dict[str, Any], operand: Tensor) -> Tensor | None:
    """Return the segment of each element of the data, of its shape; None where some have none."""
    lengths, offsets = given["lengths"], given["offsets"]
    if lengths is None and offsets is None:
        return None
    counts = offsets.diff(dim=-1) if lengths is None else lengths
    axis = given["axis"]
    size = operand.shape[axis]
    if axis != counts.dim() - 1 or bool((counts.sum(-1) != size).any()):
        return None
    rows = [
        torch.repeat_interleave(torch.arange(len(row)), row.cpu())
        for row in counts.reshape(-1, counts.shape[-1])
    ]
    index = torch.stack(rows).view(*counts.shape[:-1], size)
    view = (*index.shape, *(1,) * (operand.dim() - index.dim()))
    return index.view(view).expand(operand.shape).to(operand.device)


@expansion("grid_sampler_2d", "grid_sampler_3d")
def _grid(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    result = _run(func, given)
    options = [given[name] for name in ("interpolation_mode", "padding_mode", "align_corners")]
    with recorder.freezing(True):
        recorded = sampled(given["input"], given["grid"], *options)
    return recorder.known_as(result, recorded)


@expansion("grid_sampler_2d_backward", "grid_sampler_3d_backward")
def _grid_backward(recorder: Any, func: Any, given: dict[str, Any]) -> Any:
    """Return the pullback, recorded through that of the simpler operators."""
    options = [given[name] for name in ("interpolation_mode", "padding_mode", "align_corners")]
    results = _run(func, given)
    with recorder.freezing(True), enable_reentrant_dispatch(), torch.enable_grad():
        leaves = [given[name].detach().requires_grad_() for name in ("input", "grid")]
        value = sampled(*leaves, *options)
        recorded = torch.autograd.grad(
            value, leaves, given["grad_output"], allow_unused=True, materialize_grads=True
        )
    return tuple(
        each if each is None else recorder.known_as(each, by)
        for each, by in zip(results, recorded, strict=True)
    )


def _run(func: Any, given: dict[str, Any]) -> Any:
    schema = func._schema.arguments
    positional = [given[each.name] for each in schema if not each.kwarg_only]
    return func(*positional, **{e.name: given[e.name] for e in schema if e.kwarg_only})
