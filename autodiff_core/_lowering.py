"""From recorded operators to linear programs: what each operator of torch is on stacks.

An operator that has no entry here is applied under `torch.func.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autodiff_core import _support
from autodiff_core._capture import Call, Recording, Reference, UncapturableError
from autodiff_core._program import Builder, Program, Step, combination
from autodiff_core._support import Gather, Stack
from autodiff_core._tree import flatten, rebuild

Lowering = Callable[[Builder, Call], int | None]

_RULES: dict[Any, Lowering] = {}
_aten = torch.ops.aten

# Linear in their first argument, element by element.
_ELEMENTWISE = (
    _aten.tanh_backward,
    _aten.sigmoid_backward,
    _aten.gelu_backward,
    _aten.silu_backward,
    _aten.mish_backward,
    _aten.threshold_backward,
    _aten.hardtanh_backward,
    _aten.leaky_relu_backward,
    _aten.elu_backward,
    _aten.softplus_backward,
    _aten.log_sigmoid_backward,
    _aten.hardswish_backward,
    _aten.hardsigmoid_backward,
    _aten.div,
)
_SAME = (_aten.clone, _aten.detach, _aten.alias, _aten.contiguous, _aten.lift_fresh)
_VIEWS = (
    _aten.view,
    _aten._unsafe_view,
    _aten.reshape,
    _aten.unsqueeze,
    _aten.squeeze,
    _aten.flatten,
    _aten._reshape_alias,
)


def lower(recording: Recording) -> Program:
    """Rewrite a recorded linear map for stacks of vectors.

    Args:
        recording: The map.

    Raises:
        UncapturableError: The map is not linear in its argument.
    """
    builder = Builder(Program(len(recording.inputs)))
    for index, reference in enumerate(recording.inputs):
        builder.numbers[reference.value] = -1 - index
    for call in _used(recording):
        _lower_call(builder, call)
    program = builder.program
    program.outputs = tuple(
        builder.numbers[output.value] if isinstance(output, Reference) else _zero(output)
        for output in recording.outputs
    )
    program.shapes = tuple(tuple(output.shape) for output in recording.outputs)
    program.dtypes = tuple(output.dtype for output in recording.outputs)
    program.devices = tuple(output.device for output in recording.outputs)
    program.finish()
    return program


def _used(recording: Recording) -> list[Call]:
    """The calls on which the outputs depend."""
    needed = {o.value for o in recording.outputs if isinstance(o, Reference)}
    kept = []
    for call in reversed(recording.calls):
        if any(output is not None and output.value in needed for output in call.outputs):
            needed.update(reference.value for reference in _references(call))
            kept.append(call)
    return kept[::-1]


def _references(call: Call) -> list[Reference]:
    return [leaf for leaf in flatten((call.args, call.kwargs))[0] if isinstance(leaf, Reference)]


def _zero(constant: Any) -> None:
    """Check that a constant that is added to something linear is zero."""
    is_zero = constant == 0 if not isinstance(constant, Tensor) else _is_zero(constant)
    if not is_zero:
        raise UncapturableError("the map is not linear: a constant is added")


def _is_zero(constant: Tensor) -> bool:
    return constant._is_zerotensor() or not bool((constant != 0).any())


def _lower_call(builder: Builder, call: Call) -> None:
    live = [ref for ref in _references(call) if builder.numbers[ref.value] is not None]
    if not live:
        for output in call.outputs:
            if output is not None:
                builder.numbers[output.value] = None
        return
    rule = _RULES.get(call.operator.overloadpacket)
    output = call.outputs[0]
    is_single = output is not None and not any(call.outputs[1:])
    if rule is not None and is_single and output is not None:
        number = rule(builder, call)
        if number is not NotImplemented:
            builder.numbers[output.value] = number
            return
    _general(builder, call)


def _general(builder: Builder, call: Call) -> None:
    """The operator under vmap, each of its outputs by a step of its own."""
    leaves, structure = flatten((call.args, call.kwargs))
    places = [
        index
        for index, leaf in enumerate(leaves)
        if isinstance(leaf, Reference) and builder.numbers[leaf.value] is not None
    ]
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Reference) and index not in places:
            leaves[index] = torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device)

    def operator(*parts: Tensor) -> tuple[Tensor, ...]:
        filled = list(leaves)
        for place, part in zip(places, parts, strict=True):
            filled[place] = part
        args, kwargs = rebuild(filled, structure)
        results = call.operator(*args, **kwargs)
        results = results if isinstance(results, tuple | list) else (results,)
        return tuple(results[index] for index in live_outputs)

    live_outputs = [index for index, output in enumerate(call.outputs) if output is not None]
    sources = tuple(_number(builder, leaves[place]) for place in places)
    first = next(output for output in call.outputs if output is not None)
    whole = builder.add(
        Step(
            "general",
            sources,
            first.shape,
            first.dtype,
            lambda *stacks: _support.general(operator, stacks),
        )
    )
    for place, index in enumerate(live_outputs):
        output = call.outputs[index]
        assert output is not None
        pick = partial(_picked, place, output.shape)
        builder.numbers[output.value] = builder.add(
            Step("pick", (whole,), output.shape, output.dtype, pick)
        )


def _picked(index: int, shape: tuple[int, ...], results: tuple[Tensor, ...]) -> Stack:
    return Stack(results[index], shape)


def _number(builder: Builder, reference: Reference) -> int:
    number = builder.numbers[reference.value]
    assert number is not None
    return number


def _is_live(builder: Builder, argument: Any) -> bool:
    return isinstance(argument, Reference) and builder.numbers[argument.value] is not None


def _is_zero_reference(builder: Builder, argument: Any) -> bool:
    return isinstance(argument, Reference) and builder.numbers[argument.value] is None


def _rule(*packets: Any) -> Callable[[Lowering], Lowering]:
    def register(lowering: Lowering) -> Lowering:
        for packet in packets:
            _RULES[packet] = lowering
        return lowering

    return register


def _out(call: Call) -> Reference:
    output = call.outputs[0]
    assert output is not None
    return output


def _scaled(builder: Builder, call: Call, source: Reference, factor: Any) -> int:
    out = _out(call)
    return builder.add(combination((_number(builder, source),), (factor,), out.shape, out.dtype))


def _only_first(builder: Builder, call: Call) -> bool:
    """Whether the first argument alone depends on the map's argument."""
    return _is_live(builder, call.args[0]) and len(_references(call)) == 1


@_rule(*_ELEMENTWISE)
def _elementwise(builder: Builder, call: Call) -> Any:
    if not _only_first(builder, call) or call.kwargs.get("rounding_mode") is not None:
        return NotImplemented
    source = call.args[0]
    ones = torch.ones(source.shape, dtype=source.dtype, device=source.device)
    return _scaled(builder, call, source, call.operator(ones, *call.args[1:], **call.kwargs))


@_rule(_aten.mul)
def _mul(builder: Builder, call: Call) -> Any:
    first, second = call.args[:2]
    if isinstance(first, Reference) and isinstance(second, Reference):
        raise UncapturableError("the map is not linear: two values of it are multiplied")
    return (
        _scaled(builder, call, first, second)
        if isinstance(first, Reference)
        else _scaled(builder, call, second, first)
    )


@_rule(_aten.neg)
def _neg(builder: Builder, call: Call) -> Any:
    return _scaled(builder, call, call.args[0], -1.0)


@_rule(_aten.add, _aten.sub, _aten.rsub)
def _add(builder: Builder, call: Call) -> Any:
    first, second = call.args[:2]
    alpha = call.kwargs.get("alpha", call.args[2] if len(call.args) > 2 else 1)
    packet = call.operator.overloadpacket
    signs = {_aten.add: (1, alpha), _aten.sub: (1, -alpha), _aten.rsub: (-alpha, 1)}[packet]
    return _sum(builder, call, (first, second), signs)


def _sum(builder: Builder, call: Call, terms: Sequence[Any], factors: Sequence[Any]) -> int:
    sources, coefficients = [], []
    for term, factor in zip(terms, factors, strict=True):
        if not isinstance(term, Reference):
            _zero(term)
        elif builder.numbers[term.value] is not None:
            sources.append(_number(builder, term))
            is_one = not isinstance(factor, Tensor) and factor == 1
            coefficients.append(None if is_one else factor)
    out = _out(call)
    return builder.add(combination(sources, coefficients, out.shape, out.dtype))


@_rule(_aten.where)
def _where(builder: Builder, call: Call) -> Any:
    condition, *branches = call.args
    if isinstance(condition, Reference):
        return NotImplemented
    masks = (condition, ~condition)
    dtype = _out(call).dtype
    return _sum(builder, call, branches, [mask.to(dtype) for mask in masks])


@_rule(_aten.masked_fill)
def _masked_fill(builder: Builder, call: Call) -> Any:
    if not _only_first(builder, call):
        return NotImplemented
    source, mask, value = call.args
    _zero(value)
    return _scaled(builder, call, source, (~mask).to(source.dtype))


@_rule(*_SAME)
def _same(builder: Builder, call: Call) -> Any:
    return _number(builder, call.args[0])


@_rule(_aten._to_copy, _aten._conj)
def _to_copy(builder: Builder, call: Call) -> Any:
    out = _out(call)
    if (
        out.dtype.is_complex
        or call.args[0].dtype.is_complex
        or call.kwargs.get("device", "") is None
    ):
        return NotImplemented
    if out.dtype == call.args[0].dtype:
        return _number(builder, call.args[0])
    return _scaled(builder, call, call.args[0], None)


@_rule(_aten.copy)
def _copy(builder: Builder, call: Call) -> Any:
    source = call.args[1]
    if not _is_live(builder, source):
        _zero(source if not isinstance(source, Reference) else 0)
        return None
    return _scaled(builder, call, source, None)


@_rule(*_VIEWS)
def _view(builder: Builder, call: Call) -> Any:
    out = _out(call)
    source = _number(builder, call.args[0])
    return builder.step(
        "reshape", source, out.shape, out.dtype, partial(_support.reshape, shape=out.shape)
    )


@_rule(_aten.t, _aten.transpose, _aten.permute)
def _permute(builder: Builder, call: Call) -> Any:
    out, rank = _out(call), len(call.args[0].shape)
    dims = list(range(rank))
    if call.operator.overloadpacket is _aten.permute:
        dims = [dim % rank for dim in call.args[1]]
    elif rank > 1:
        first, second = (0, 1) if call.operator.overloadpacket is _aten.t else call.args[1:]
        dims[first], dims[second] = dims[second], dims[first]
    source = _number(builder, call.args[0])
    return builder.step(
        "permute", source, out.shape, out.dtype, partial(_support.permute, dims=tuple(dims))
    )


@_rule(_aten.expand)
def _expand(builder: Builder, call: Call) -> Any:
    out, source = _out(call), call.args[0]
    if out.shape == source.shape:
        return _number(builder, source)
    return builder.step(
        "expand",
        _number(builder, source),
        out.shape,
        out.dtype,
        partial(_support.expand, shape=out.shape),
    )


@_rule(_aten.sum, _aten.mean)
def _total(builder: Builder, call: Call) -> Any:
    source, out = call.args[0], _out(call)
    rank = len(source.shape)
    given = call.args[1] if len(call.args) > 1 else None
    given = [given] if isinstance(given, int) else given
    dims = tuple(sorted(dim % rank for dim in given)) if given and rank else tuple(range(rank))
    keepdim = bool(call.args[2]) if len(call.args) > 2 else bool(call.kwargs.get("keepdim", False))
    if out.dtype != source.dtype:
        return NotImplemented
    number = _number(builder, source)
    if call.operator.overloadpacket is _aten.mean:
        count = torch.Size([source.shape[dim] for dim in dims]).numel()
        number = builder.add(
            combination((number,), (1 / max(count, 1),), source.shape, source.dtype)
        )
    return builder.step(
        "sum",
        number,
        out.shape,
        out.dtype,
        partial(_support.total, dims=dims, keepdim=keepdim),
    )


@_rule(_aten.mm, _aten.bmm, _aten.mv, _aten.dot)
def _matmul(builder: Builder, call: Call) -> Any:
    first, second = call.args[:2]
    return _product(builder, first, second, _out(call))


@_rule(_aten.addmm, _aten.addmv, _aten.baddbmm)
def _addmm(builder: Builder, call: Call) -> Any:
    added, first, second = call.args[:3]
    alpha, beta = call.kwargs.get("alpha", 1), call.kwargs.get("beta", 1)
    out = _out(call)
    sources, factors = [], []
    if _is_live(builder, first) or _is_live(builder, second):
        sources.append(_product(builder, first, second, out))
        factors.append(None if alpha == 1 else alpha)
    if _is_live(builder, added):
        sources.append(_number(builder, added))
        factors.append(None if beta == 1 else beta)
    elif not isinstance(added, Reference) and beta != 0:
        _zero(added)
    return builder.add(combination(sources, factors, out.shape, out.dtype))


def _product(builder: Builder, first: Any, second: Any, out: Reference) -> int:
    """A matrix product one of whose factors is a constant."""
    if isinstance(first, Reference) and isinstance(second, Reference):
        raise UncapturableError("the map is not linear: two values of it are multiplied")
    if isinstance(first, Reference):
        return _times(builder, _number(builder, first), first.shape, second, out)
    # W x = (xᵀ Wᵀ)ᵀ
    if len(second.shape) == 1:
        return (
            _times(builder, _number(builder, second), second.shape, first.mT, out)
            if (first.dim() == 2)
            else _times(builder, _number(builder, second), second.shape, first, out)
        )
    turned = (*out.shape[:-2], out.shape[-1], out.shape[-2])

    def apply(stack: Stack) -> Stack:
        product = _support.times(_support.transposed(stack), first.mT, turned)
        return _support.transposed(product)

    return builder.step("matmul", _number(builder, second), out.shape, out.dtype, apply)


def _times(
    builder: Builder, source: int, shape: tuple[int, ...], matrix: Tensor, out: Reference
) -> int:
    columns = matrix if matrix.dim() > 1 else matrix[:, None]
    as_matrix = shape if len(shape) > 1 else (1, *shape)
    product = (*as_matrix[:-1], columns.shape[-1])

    def apply(stack: Stack) -> Stack:
        lines = _support.times(_support.reshape(stack, as_matrix), columns, product)
        return _support.reshape(lines, out.shape)

    return builder.step("matmul", source, out.shape, out.dtype, apply)


@_rule(_aten.linalg_solve_triangular)
def _solve_triangular(builder: Builder, call: Call) -> Any:
    matrix, given = call.args[:2]
    if isinstance(matrix, Reference) or matrix.dim() != 2 or not _is_live(builder, given):
        return NotImplemented
    left, options = call.kwargs.get("left", True), dict(call.kwargs)

    def solve(stack: Stack) -> Stack:
        return _support.solved(stack, lambda lines: call.operator(matrix, lines, **options), left)

    out = _out(call)
    return builder.step("solve", _number(builder, given), out.shape, out.dtype, solve)


@_rule(_aten.cholesky_solve)
def _cholesky_solve(builder: Builder, call: Call) -> Any:
    given, factor, *rest = call.args
    if isinstance(factor, Reference) or factor.dim() != 2 or len(given.shape) != 2:
        return NotImplemented

    def solve(stack: Stack) -> Stack:
        return _support.solved(stack, lambda lines: call.operator(lines, factor, *rest), True)

    out = _out(call)
    return builder.step("solve", _number(builder, given), out.shape, out.dtype, solve)


@_rule(_aten.tril, _aten.triu)
def _triangle(builder: Builder, call: Call) -> Any:
    source = call.args[0]
    ones = torch.ones(source.shape, dtype=source.dtype, device=source.device)
    return _scaled(builder, call, source, call.operator(ones, *call.args[1:]))


@_rule(_aten.index)
def _index(builder: Builder, call: Call) -> Any:
    source, indices = call.args[:2]
    if not isinstance(source, Reference):
        return NotImplemented
    flat = _flat_index(source.shape, indices)
    if flat is None:
        return NotImplemented
    dim, last, positions = flat
    merged = (*source.shape[:dim], -1, *source.shape[last:])
    return _gathered(builder, source, dim, _numbers(merged, source.shape), positions, _out(call))


def _numbers(shape: tuple[int, ...], like: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with its -1 replaced."""
    known = torch.Size([size for size in shape if size != -1]).numel()
    rest = torch.Size(like).numel() // max(known, 1)
    return tuple(rest if size == -1 else size for size in shape)


def _flat_index(
    shape: tuple[int, ...], indices: Sequence[Tensor | None]
) -> tuple[int, int, Tensor] | None:
    """Index tensors that stand side by side as one index of the merged dimensions.

    Returns:
        The first of the dimensions, one past the last, and the index, of the shape that the
        tensors broadcast to; None where it cannot be said so.
    """
    given = [dim for dim, index in enumerate(indices) if index is not None]
    if not given or given != list(range(given[0], given[-1] + 1)):
        return None
    tensors = [indices[dim] for dim in given]
    if any(t is None or isinstance(t, Reference) or t.dtype == torch.bool for t in tensors):
        return None
    flat: Any = 0
    for dim, tensor in zip(given, tensors, strict=True):
        assert tensor is not None
        size = shape[dim]
        if size == 0:
            return None
        flat = flat * size + torch.where(tensor < 0, tensor + size, tensor).long()
    return given[0], given[-1] + 1, flat


def _gathered(
    builder: Builder,
    source: Reference,
    dim: int,
    merged: tuple[int, ...],
    positions: Tensor,
    out: Reference,
) -> int:
    index = Gather(positions.reshape(-1))

    def apply(stack: Stack) -> Stack:
        taken = _support.gather(_support.reshape(stack, merged), dim, index)
        return _support.reshape(taken, out.shape)

    return builder.step("gather", _number(builder, source), out.shape, out.dtype, apply)


@_rule(_aten.index_select)
def _index_select(builder: Builder, call: Call) -> Any:
    source, dim, positions = call.args
    if not _only_first(builder, call) or not source.shape:
        return NotImplemented
    dim %= len(source.shape)
    return _gathered(builder, source, dim, source.shape, positions, _out(call))


@_rule(_aten.roll)
def _roll(builder: Builder, call: Call) -> Any:
    source, shifts = call.args[:2]
    dims = call.args[2] if len(call.args) > 2 else []
    if len(shifts) != 1 or len(dims) != 1:
        return NotImplemented
    dim = dims[0] % len(source.shape)
    positions = torch.arange(source.shape[dim], device=source.device).roll(shifts[0])
    return _gathered(builder, source, dim, source.shape, positions, _out(call))


@_rule(_aten.flip)
def _flip(builder: Builder, call: Call) -> Any:
    source, dims = call.args
    if len(dims) != 1:
        return NotImplemented
    dim = dims[0] % len(source.shape)
    positions = torch.arange(source.shape[dim], device=source.device).flip(0)
    return _gathered(builder, source, dim, source.shape, positions, _out(call))


@_rule(_aten.index_put, _aten._index_put_impl, _aten._unsafe_index_put)
def _index_put(builder: Builder, call: Call) -> Any:
    target, indices, values = call.args[:3]
    accumulate = call.args[3] if len(call.args) > 3 else call.kwargs.get("accumulate", False)
    if not accumulate or not _is_live(builder, values):
        return NotImplemented
    flat = _flat_index(target.shape, indices)
    if flat is None:
        return NotImplemented
    dim, last, positions = flat
    natural = (*target.shape[:dim], *positions.shape, *target.shape[last:])
    if values.shape != natural:
        return NotImplemented
    scattered = _scattered(
        builder, values, dim, positions, (*target.shape[:dim], -1, *target.shape[last:]), _out(call)
    )
    return _with_target(builder, call, target, scattered)


def _with_target(builder: Builder, call: Call, target: Any, scattered: int) -> int:
    """What is added to a target that is zero, or itself a value."""
    out = _out(call)
    if _is_live(builder, target):
        pair = _number(builder, target), scattered
        return builder.add(combination(pair, (None, None), out.shape, out.dtype))
    if not isinstance(target, Reference):
        _zero(target)
    return scattered


def _scattered(
    builder: Builder,
    values: Reference,
    dim: int,
    positions: Tensor,
    merged: tuple[int, ...],
    out: Reference,
) -> int:
    merged = _numbers(merged, out.shape)
    index = positions.reshape(-1)
    flat = (*merged[:dim], len(index), *merged[dim + 1 :])

    def apply(stack: Stack) -> Stack:
        added = _support.scatter(_support.reshape(stack, flat), dim, index, merged[dim])
        return _support.reshape(added, out.shape)

    return builder.step("scatter", _number(builder, values), out.shape, out.dtype, apply)


@_rule(_aten.index_add)
def _index_add(builder: Builder, call: Call) -> Any:
    target, dim, positions, values = call.args[:4]
    if not _is_live(builder, values) or isinstance(positions, Reference) or call.kwargs:
        return NotImplemented
    if not target.shape:
        return NotImplemented
    dim %= len(target.shape)
    scattered = _scattered(builder, values, dim, positions, tuple(target.shape), _out(call))
    return _with_target(builder, call, target, scattered)


@_rule(_aten.slice, _aten.select)
def _cut(builder: Builder, call: Call) -> Any:
    source, out = call.args[0], _out(call)
    rank = len(source.shape)
    given: Sequence[Any] = (*call.args[1:], *(None,) * (5 - len(call.args)))
    dim = (given[0] or 0) % rank
    size = source.shape[dim]
    if call.operator.overloadpacket is _aten.select:
        start = given[1] % size
        stop, step = start + 1, 1
    else:
        start, stop, step = _slice(given[1:], size)
    if step != 1:
        return NotImplemented
    shape = (*source.shape[:dim], stop - start, *source.shape[dim + 1 :])

    def apply(stack: Stack) -> Stack:
        return _support.reshape(_support.cut(stack, dim, start, stop), out.shape)

    assert torch.Size(shape).numel() == torch.Size(out.shape).numel()
    return builder.step("cut", _number(builder, source), out.shape, out.dtype, apply)


def _slice(given: Sequence[Any], size: int) -> tuple[int, int, int]:
    begin, end, stride = slice(*(*given, None, None, None)[:3]).indices(size)
    return begin, max(begin, end), stride


@_rule(_aten.slice_backward, _aten.select_backward)
def _pad(builder: Builder, call: Call) -> Any:
    source, sizes, dim = call.args[:3]
    out = _out(call)
    dim %= len(sizes)
    if call.operator.overloadpacket is _aten.select_backward:
        start, step = call.args[3] % sizes[dim], 1
    else:
        start, _, step = _slice(call.args[3:], sizes[dim])
    if step != 1:
        return NotImplemented
    length = 1 if call.operator.overloadpacket is _aten.select_backward else source.shape[dim]
    part = (*sizes[:dim], length, *sizes[dim + 1 :])

    def apply(stack: Stack) -> Stack:
        return _support.pad(_support.reshape(stack, part), dim, start, sizes[dim])

    return builder.step("pad", _number(builder, source), out.shape, out.dtype, apply)


@_rule(_aten.cat, _aten.stack)
def _join(builder: Builder, call: Call) -> Any:
    parts, out = call.args[0], _out(call)
    dim = (call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)) % len(out.shape)
    is_stack = call.operator.overloadpacket is _aten.stack
    sources, layout = [], []
    for part in parts:
        shape = tuple(part.shape)
        if is_stack:
            shape = (*shape[:dim], 1, *shape[dim:])
        if len(shape) != len(out.shape):
            # torch lets an empty tensor of one dimension join anything.
            return NotImplemented
        if not isinstance(part, Reference):
            _zero(part)
        if _is_live(builder, part):
            layout.append((shape, len(sources)))
            sources.append(_number(builder, part))
        else:
            layout.append((shape, None))

    def apply(*stacks: Stack) -> Stack:
        first = stacks[0]
        joined = [
            _zeros(first, shape) if place is None else _support.reshape(stacks[place], shape)
            for shape, place in layout
        ]
        return _support.join(joined, dim)

    return builder.add(Step("join", tuple(sources), out.shape, out.dtype, apply))


def _zeros(like: Stack, shape: tuple[int, ...]) -> Stack:
    return Stack(like.data.new_zeros(1).expand(like.count, *shape), shape)


@_rule(_aten._softmax_backward_data)
def _softmax_backward(builder: Builder, call: Call) -> Any:
    """With the softmax y: y * (g - sum(g * y))."""
    gradient, softmax, dim, dtype = call.args
    out = _out(call)
    if not _only_first(builder, call) or dtype != out.dtype or not out.shape:
        return NotImplemented
    number, shape = _number(builder, gradient), out.shape
    dim %= len(shape)
    weighted = builder.add(combination((number,), (softmax,), shape, out.dtype))
    mean = _sum_keeping(builder, weighted, shape, dim, out.dtype)
    return builder.add(combination((weighted, mean), (None, -softmax), shape, out.dtype))


@_rule(_aten._log_softmax_backward_data)
def _log_softmax_backward(builder: Builder, call: Call) -> Any:
    """With the softmax y: g - y * sum(g)."""
    gradient, log_softmax, dim, dtype = call.args
    out = _out(call)
    if not _only_first(builder, call) or dtype != out.dtype or not out.shape:
        return NotImplemented
    number, shape = _number(builder, gradient), out.shape
    mean = _sum_keeping(builder, number, shape, dim % len(shape), out.dtype)
    factors = (None, -log_softmax.exp())
    return builder.add(combination((number, mean), factors, shape, out.dtype))


def _sum_keeping(
    builder: Builder, number: int, shape: tuple[int, ...], dim: int, dtype: torch.dtype
) -> int:
    kept = (*shape[:dim], 1, *shape[dim + 1 :])
    apply = partial(_support.total, dims=(dim,), keepdim=True)
    return builder.step("sum", number, kept, dtype, apply)


@_rule(_aten.native_layer_norm_backward)
def _layer_norm_backward(builder: Builder, call: Call) -> Any:
    """(w g - mean(w g) - n mean(w g n)) / s with the normalised input n, of deviation s.

    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization" (2016).
    """
    gradient, given, normalized, mean, rstd, weight, _, wanted = call.args
    out = _out(call)
    if not _only_first(builder, call) or any(wanted[1:]) or out.dtype != mean.dtype:
        return NotImplemented
    number, shape = _number(builder, gradient), out.shape
    dims = tuple(range(len(shape) - len(normalized), len(shape)))
    count = torch.Size(normalized).numel()
    weight = given.new_ones(normalized) if weight is None else weight
    unit = (given - mean) * rstd
    means = []
    for factor in (weight, weight * unit):
        scaled = builder.add(combination((number,), (factor / count,), shape, out.dtype))
        kept = tuple(1 if dim in dims else size for dim, size in enumerate(shape))
        apply = partial(_support.total, dims=dims, keepdim=True)
        means.append(builder.step("sum", scaled, kept, out.dtype, apply))
    factors = (weight * rstd, -rstd, -unit * rstd)
    return builder.add(combination((number, *means), factors, shape, out.dtype))
