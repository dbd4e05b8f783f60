"""The registry of detection rules: what an operator of a graph does to dependencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from autodiff_core.sparse._detection.dependence import Context, Traced


@dataclass(frozen=True, eq=False)
class Call:
    """One operator of a graph applied to values, at least one of which is `Traced`.

    Attributes:
        target: The operator, an overload of torch.
        arguments: The positional arguments: `Traced` tensors, constant tensors and options.
        keywords: The keyword arguments.
        node: The node of the graph.
        context: What rules share while the graph is interpreted.
    """

    target: Any
    arguments: Sequence[Any]
    keywords: dict[str, Any]
    node: fx.Node
    context: Context

    @property
    def name(self) -> str:
        """The name of the operator without its overload."""
        return self.target.overloadpacket.__name__

    @property
    def has_one_result(self) -> bool:
        """Whether the operator returns one tensor; else it returns a sequence."""
        return hasattr(self.node.meta.get("tensor_meta"), "dtype")

    @property
    def metas(self) -> list[Any]:
        """The metadata of each result; None for one that no node uses."""
        meta = self.node.meta["tensor_meta"]
        return [meta] if self.has_one_result else list(meta)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the only result."""
        return tuple(self.node.meta["tensor_meta"].shape)

    @property
    def is_described(self) -> bool:
        """Whether the metadata of all results is known, which rules need."""
        return self.node.meta.get("tensor_meta") is not None and None not in self.metas

    @property
    def is_differentiable(self) -> bool:
        """Whether a result can have a derivative; integers and truth values have none."""
        if self.node.meta.get("tensor_meta") is None:
            return True
        dtypes = [meta.dtype for meta in self.metas if meta is not None]
        return any(dtype.is_floating_point or dtype.is_complex for dtype in dtypes)


Rule = Callable[[Call], Any]
"""Returns a `Traced` result, a list of them, or NotImplemented where the rule does not apply."""

RULES: dict[str, Rule] = {}
"""The rule of each operator, by the operator's name."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def shapes_of(node: fx.Node) -> Any:
    """Return the shape of a node's result as a tuple, or a list of shapes for several results."""
    meta = node.meta.get("tensor_meta")
    if meta is None:
        return ()
    if hasattr(meta, "dtype"):
        return tuple(meta.shape)
    return [() if part is None else tuple(part.shape) for part in meta]


def independent(node: fx.Node) -> Any:
    """Return a node's results as tensors through which no derivative passes."""
    shapes = shapes_of(node)
    return Traced(shapes) if isinstance(shapes, tuple) else [Traced(shape) for shape in shapes]
