"""The registry of detection rules: what an operator does to dependencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.steps import Meta, Step


@dataclass(frozen=True, eq=False)
class Call:
    """One operator applied to values, at least one of which is `Traced`.

    Attributes:
        target: The operator, an overload of torch.
        arguments: The positional arguments: `Traced` tensors, constant tensors and options.
        keywords: The keyword arguments.
        step: The recorded step.
        context: What rules share while a recording is interpreted.
    """

    target: Any
    arguments: Sequence[Any]
    keywords: dict[str, Any]
    step: Step
    context: Context

    @property
    def name(self) -> str:
        """The name of the operator without its overload."""
        return self.target.overloadpacket.__name__

    @property
    def has_one_result(self) -> bool:
        """Whether the operator returns one tensor; else it returns a sequence."""
        return self.step.has_one_result

    @property
    def metas(self) -> tuple[Meta | None, ...]:
        """What is known of each result; None for one that is no tensor."""
        return self.step.metas

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the only result."""
        return shape_of(self.step.metas[0])

    def operand(self, name: str) -> Any:
        """Return an argument by its name in the schema of the operator, or its default."""
        for position, each in enumerate(self.target._schema.arguments):
            if each.name == name:
                if position < len(self.arguments):
                    return self.arguments[position]
                return self.keywords.get(name, each.default_value)
        return None

    @property
    def is_differentiable(self) -> bool:
        """Whether a result can have a derivative; integers and truth values have none."""
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


def shape_of(meta: Meta | None) -> tuple[int, ...]:
    """Return the shape of a result."""
    return () if meta is None else meta.shape


def independent(step: Step) -> Any:
    """Return a step's results as tensors through which no derivative passes."""
    results = [Traced(shape_of(meta)) for meta in step.metas]
    return results[0] if step.has_one_result else results
