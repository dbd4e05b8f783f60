"""What the operators of a graph do to dependencies."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from autodiff_core.sparse._detection.matrix_products import CONTRACTIONS
from autodiff_core.sparse._detection.dependence import SHAPE_ONLY, Context, Traced, holds_traced
from autodiff_core.sparse._detection.elementwise import _product, elementwise
from autodiff_core.sparse._detection.movement import is_movement, move
from autodiff_core.sparse._detection.reductions import REDUCTIONS

ZERO_DERIVATIVE = {
    "argmax", "argmin", "argsort", "ceil", "floor", "floor_divide", "heaviside", "nextafter",
    "round", "sgn", "sign", "signbit", "trunc",
}  # fmt: skip
"""Operators whose derivative is zero wherever it exists."""

UNCHANGED = {"alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "positive"}

LINEAR_IN_FIRST = {"threshold_backward", "hardtanh_backward", "relu_backward"}
"""Operators with a derivative for the first argument alone; the others choose the branch."""

ELEMENTWISE_WITHOUT_TAG = {
    "_prelu_kernel", "frexp", "gelu_backward", "hardswish_backward", "hardsigmoid_backward",
    "log_sigmoid_forward", "nan_to_num", "native_dropout_backward", "softplus_backward",
    "special_xlog1py", "xlogy",
}  # fmt: skip

Rule = Callable[[Any, Sequence[Any], fx.Node, Context], Any]


def apply(node: fx.Node, arguments: Any, keywords: Any, context: Context) -> Any:
    """The result of a node: numbers where nothing traced goes in, else what it depends on."""
    target = node.target
    if target is operator.getitem:
        return arguments[0][arguments[1]]
    if not isinstance(target, torch._ops.OpOverload):  # pyright: ignore[reportAttributeAccessIssue]
        return _conservative(str(target), (arguments, keywords), node, context)
    if torch.Tag.nondeterministic_seeded in target.tags:
        # Random numbers differ from run to run; what is drawn from depends on nothing.
        if target.overloadpacket.__name__ == "native_dropout":
            return _conservative("native_dropout", (arguments, keywords), node, context)
        return _unknown(node)
    name = target.overloadpacket.__name__
    if name in SHAPE_ONLY:
        fill = {"zeros_like": 0, "ones_like": 1}.get(name) if len(arguments) < 2 else arguments[1]
        dtype = node.meta["tensor_meta"].dtype
        return torch.full((), fill or 0, dtype=dtype).expand(_shapes(node))
    if not holds_traced(list(arguments)) and not holds_traced(list(keywords.values())):
        return target(*arguments, **_on_cpu(keywords))
    return _apply_operator(target, arguments, keywords, node, context)


def _apply_operator(
    target: Any, arguments: Any, keywords: Any, node: fx.Node, context: Context
) -> Any:
    name = target.overloadpacket.__name__
    bare = name.removesuffix("_copy")
    shape = _shapes(node)
    if name.startswith(("empty", "new_empty", "rand")) or not _is_differentiable(node):
        return _unknown(node)
    if name in ZERO_DERIVATIVE or (name == "div" and keywords.get("rounding_mode")):
        return _unknown(node)
    if name in UNCHANGED or name == "_to_copy":
        return arguments[0]
    if name == "copy":
        return elementwise([arguments[1]], shape, context)
    if name in LINEAR_IN_FIRST:
        return elementwise(arguments[:1], shape, context)
    if name in ("mul", "div", "pow"):
        return _product(name, arguments, shape, context)
    if name == "where" and holds_traced(arguments[0]):
        return elementwise(arguments[1:], shape, context)
    if name == "masked_fill" and holds_traced(arguments[1]):
        return elementwise([arguments[0], arguments[2]], shape, context)
    if is_movement(bare, arguments) and not keywords:
        return move(target, bare, arguments, context)
    for table in (REDUCTIONS, CONTRACTIONS):
        if name in table and _is_described(node):
            try:
                return table[name](name, arguments, keywords, node, context)
            except NotImplementedError:
                return _conservative(name, (arguments, keywords), node, context)
    if torch.Tag.pointwise in target.tags or name in ELEMENTWISE_WITHOUT_TAG:
        operands = [*arguments, *keywords.values()]
        if isinstance(shape, tuple):
            return elementwise(operands, shape, context)
        return [elementwise(operands, each, context) for each in shape]
    return _conservative(name, (arguments, keywords), node, context)


def _on_cpu(keywords: Any) -> Any:
    # Index maps live on the CPU, and so must the indices that they meet.
    return {**keywords, "device": torch.device("cpu")} if "device" in keywords else keywords


def _conservative(name: str, given: Any, node: fx.Node, context: Context) -> Any:
    """Every element of the result depends on everything that is read."""
    context.conservative.add(name)
    operands: list[Any] = []
    map_aggregate(given, lambda each: operands.append(each))
    shapes = _shapes(node)
    if isinstance(shapes, tuple):
        return Traced(shapes, context.everything(operands, shapes))
    return [Traced(shape, context.everything(operands, shape)) for shape in shapes]


def _unknown(node: fx.Node) -> Any:
    shapes = _shapes(node)
    return Traced(shapes) if isinstance(shapes, tuple) else [Traced(shape) for shape in shapes]


def _shapes(node: fx.Node) -> Any:
    """The shape of a node's result as a tuple, or a list of them for several results."""
    meta = node.meta.get("tensor_meta")
    if meta is None:
        return ()
    if hasattr(meta, "dtype"):
        return tuple(meta.shape)
    return [() if part is None else tuple(part.shape) for part in meta]


def _is_described(node: fx.Node) -> bool:
    """Whether all results of a node are known by shape; rules need them all."""
    meta = node.meta.get("tensor_meta")
    return hasattr(meta, "dtype") or (meta is not None and None not in meta)


def _is_differentiable(node: fx.Node) -> bool:
    """Whether a result has numbers with derivatives: integers and truth values have none."""
    meta = node.meta.get("tensor_meta")
    if meta is None:
        return True
    parts = [meta] if hasattr(meta, "dtype") else [part for part in meta if part is not None]
    return any(part.dtype.is_floating_point or part.dtype.is_complex for part in parts)
