"""Find the least precise floating-point stage that the derivative of a function runs through."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from autodiff_core import dtypes_of, nodes_between
from jobs.functions.attention import default_attention, uses_fused_attention
from jobs.functions.batch_sum import BatchSum
from jobs.functions.evaluation import evaluated_on_copies
from jobs.functions.returned_values import leaves_of
from jobs.functions.tracebacks import line_of_user
from jobs.sources.source_array import name_of

_WITHOUT_TENSORS = {type(None), bool, int, float, complex, str, torch.dtype, torch.device}


@dataclass(frozen=True)
class Stage:
    """A stage of a function that computes less precisely than the point is given.

    Attributes:
        dtype: Its dtype.
        operation: The first operation of this dtype, such as ``float`` or ``matmul``.
        line: Where the user's source calls it, as ``file:line``; empty where that is unknown.
    """

    dtype: torch.dtype
    operation: str
    line: str

    def figures(self) -> dict[str, str]:
        """Return what the result file keeps."""
        return {"dtype": name_of(self.dtype), "operation": self.operation, "line": self.line}

    def __str__(self) -> str:
        """Name the stage, as a part of a sentence."""
        where = f" in {self.line}" if self.line else ""
        return f"{name_of(self.dtype)} ({self.operation}{where})"


@dataclass(frozen=True)
class Arithmetic:
    """What an evaluation shows of the arithmetic of a function.

    Attributes:
        stage: The least precise stage of its derivative; None where all of them are as precise as
            the point, and where the function cannot be evaluated or has no derivative by autograd.
        real_casts: Where imaginary parts are dropped, as ``file:line``.
        has_fused_attention: Whether it would evaluate attention by a fused kernel outside of a job.
    """

    stage: Stage | None = None
    real_casts: tuple[str, ...] = ()
    has_fused_attention: bool = False


def arithmetic(function: Callable[..., Any], point: Sequence[Tensor], seed: int) -> Arithmetic:
    """Evaluate a function once and look at its arithmetic.

    A stage counts where a path of the autograd graph from an output to the point runs through it;
    masks, integers, and constants that were computed in another dtype are on no such path. Inside a
    `torch.autograd.Function` there is no graph: there, what its results are computed from counts.

    Args:
        function: The function; of a sum over batches the first batch is evaluated.
        point: Its arguments.
        seed: The seed of torch's generators.
    """
    if isinstance(function, BatchSum):
        function = function.sample()
    epsilon = max(map(_precision, point))
    stage, is_fused = None, False
    # What is wrong with the function itself is said where it is differentiated.
    with _real_casts() as real_casts, suppress(Exception), torch.enable_grad():
        with default_attention(), _Watch(epsilon) as watch:
            value, inputs = evaluated_on_copies(function, point, seed)
        outputs = _tensors(leaves_of(value))
        stage = watch.narrowest(outputs, inputs)
        is_fused = uses_fused_attention(nodes_between(outputs, inputs))
    return Arithmetic(stage, tuple(real_casts), is_fused)


@contextmanager
def _real_casts() -> Iterator[dict[str, None]]:
    """Collect where torch and numpy warn of imaginary parts that are dropped."""
    found: dict[str, None] = {}

    def note(message: Warning | str, *details: Any) -> None:
        # Other warnings are shown by the evaluations that follow.
        if str(message).startswith("Casting complex values to real"):
            found[line_of_user(sys._getframe(1))] = None

    warns_always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note
            yield found
    finally:
        torch.set_warn_always(warns_always)


class _Watch(TorchFunctionMode):
    """Notes results that are less precise than a dtype, while a function is evaluated."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self._epsilon = epsilon
        self._seen: list[tuple[Stage, Node | None]] = []
        # The stages of tensors that are computed without a graph, from tensors that have one. What
        # a `torch.autograd.Function` computes is such a tensor, and has a graph when it returns.
        self._hidden = WeakIdKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = _tensors((args, *(kwargs or {}).values()))
        self._note_returned(given)
        for tensor in _tensors(args[:1] if func is Tensor.__setitem__ else result):
            self._note(tensor, getattr(func, "__name__", str(func)), given)
        return result

    def _note(self, tensor: Tensor, operation: str, given: Sequence[Tensor]) -> None:
        stage = None
        if not _precision(tensor):
            return
        if _precision(tensor) > self._epsilon:
            stage = Stage(tensor.dtype, operation, line_of_user(sys._getframe(2)))
        if tensor.requires_grad:
            if stage is not None:
                # Inside a transformation of torch.func tensors have graphs of their own.
                is_inner = is_functorch_wrapped_tensor(tensor)
                self._seen.append((stage, None if is_inner else tensor.grad_fn))
        elif any(each.requires_grad or each in self._hidden for each in given):
            before = [self._hidden.get(each) for each in given]
            self._hidden[tensor] = _least_precise([*before, stage])

    def _note_returned(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            stage = self._hidden.get(tensor) if tensor.requires_grad else None
            if stage is not None:
                self._seen.append((stage, tensor.grad_fn))

    def narrowest(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> Stage | None:
        """Return the first stage of the least precise dtype between outputs and inputs."""
        self._note_returned(outputs)
        nodes = nodes_between(outputs, inputs)
        on_path = set(nodes)
        stages = [stage for stage, node in self._seen if node in on_path]
        # Where torch computes several steps in one call, only the graph shows what is between.
        inner = {stage.dtype: stage for stage, node in reversed(self._seen) if node is None}
        stages += [
            inner.get(dtype, Stage(dtype, re.sub(r"Backward\d*$", "", node.name()), ""))
            for node in nodes
            for dtype in dtypes_of(node)
            if torch.finfo(dtype).eps > self._epsilon
        ]
        return _least_precise(stages)


def _tensors(nested: Any) -> list[Tensor]:
    # Almost all that torch's functions take and return is nested in tuples, lists and dicts alone.
    kind = type(nested)
    if kind is tuple or kind is list:
        return [tensor for each in nested for tensor in _tensors(each)]
    if isinstance(nested, Tensor):
        return [nested]
    if kind in _WITHOUT_TENSORS:
        return []
    return [each for each in tree_leaves(nested) if isinstance(each, Tensor)]


def _precision(tensor: Tensor) -> float:
    is_inexact = tensor.is_floating_point() or tensor.is_complex()
    return torch.finfo(tensor.dtype).eps if is_inexact else 0.0


def _least_precise(stages: Iterable[Stage | None]) -> Stage | None:
    found = (each for each in stages if each is not None)
    return max(found, key=lambda each: torch.finfo(each.dtype).eps, default=None)
