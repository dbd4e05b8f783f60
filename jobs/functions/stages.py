"""Find the least precise floating-point stage that the derivative of a function runs through."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from autodiff_core import custom_without_jvp, dtypes_of, nodes_between
from jobs.functions.attention import Kernel, attention_kernel, default_attention
from jobs.functions.batch_sum import BatchSum
from jobs.functions.evaluation import evaluated_on_copies
from jobs.functions.returned_values import leaves_of
from jobs.functions.tracebacks import line_of_user
from jobs.sources.source_array import name_of

_NUMBERS = {type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.Size}


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
class Observed:
    """What an evaluation shows of the arithmetic of a function.

    Attributes:
        stage: The least precise stage of its derivative; None where all of them are as precise as
            the point, and where the function cannot be evaluated or has no derivative by autograd.
        real_casts: Where imaginary parts are dropped, as ``file:line``.
        attention: The kernel that evaluated attention, ``fused`` or ``math``; empty without any.
        no_forward: Why no tangent passes through the function, as a clause; empty where that is
            not known.
    """

    stage: Stage | None = None
    real_casts: tuple[str, ...] = ()
    attention: Kernel = ""
    no_forward: str = ""


class ObservedFunction:
    """A function that notes the arithmetic of its first evaluation that has a graph.

    A stage counts where a path of the autograd graph from an output to the point runs through it;
    masks, integers, and constants that were computed in another dtype are on no such path. Inside a
    `torch.autograd.Function` there is no graph: there, what its results are computed from counts.

    Attributes:
        found: What was seen; None before that evaluation.
    """

    def __init__(self, function: Callable[..., Any], point: Sequence[Tensor]) -> None:
        """Keep the function and a point, whose precision stages are compared with."""
        self.found: Observed | None = None
        self._function = function
        self._epsilon = max(map(_precision, point))

    def __call__(self, *arguments: Any) -> Any:
        """Evaluate the function."""
        inputs = [each for each in _tensors(arguments) if each.requires_grad]
        if self.found is not None or not inputs or any(map(is_functorch_wrapped_tensor, inputs)):
            return self._function(*arguments)
        # What works in place on an argument must not change where its graph leads to.
        given = (
            each.clone() if isinstance(each, Tensor) and not each.is_leaf else each
            for each in arguments
        )
        with _real_casts() as real_casts, _Watch(self._epsilon) as watch:
            value = self._function(*given)
        outputs = _tensors(leaves_of(value))
        nodes = nodes_between(outputs, inputs)
        stage, kernel = watch.narrowest(outputs, nodes), attention_kernel(nodes)
        custom = custom_without_jvp(nodes)
        why = f"the custom autograd.Function {custom} defines no jvp" if custom else ""
        self.found = Observed(stage, tuple(real_casts), kernel, why)
        return value


def observed(function: Callable[..., Any], point: Sequence[Tensor], seed: int) -> Observed:
    """Evaluate a function once, as outside of a job, and look at its arithmetic.

    Args:
        function: The function; of a sum over batches the first batch is evaluated.
        point: Its arguments.
        seed: The seed of torch's generators.
    """
    if isinstance(function, BatchSum):
        function = function.sample()
    watched = ObservedFunction(function, point)
    # What is wrong with the function itself is said where it is differentiated.
    with suppress(Exception), torch.enable_grad(), default_attention():
        evaluated_on_copies(watched, point, seed)
    return watched.found or Observed()


@contextmanager
def _real_casts() -> Iterator[dict[str, None]]:
    """Collect where torch and numpy warn of imaginary parts that are dropped."""
    found: dict[str, None] = {}

    def note(message: Warning | str, *details: Any) -> None:
        # Other warnings are shown by the evaluations that follow.
        if str(message).startswith("Casting complex values to real"):
            found[line_of_user(sys._getframe(1), __file__)] = None

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
        if self._is_of_no_interest(result, (*args, *(kwargs or {}).values())):
            return result
        given = _tensors((args, *(kwargs or {}).values()))
        self._note_returned(given)
        for tensor in _tensors(args[:1] if func is Tensor.__setitem__ else result):
            self._note(tensor, getattr(func, "__name__", str(func)), given)
        return result

    def _is_of_no_interest(self, result: Any, given: Iterable[Any]) -> bool:
        """Return at once that there is nothing to note, as of almost all calls of a function."""
        if type(result) is not Tensor:
            # A call that returns nothing may have written into a tensor.
            return result is not None and type(result) in _NUMBERS
        if len(self._hidden) or _epsilon(result.dtype) > self._epsilon:
            return False
        if result.requires_grad:
            return True
        for each in given:
            kind = type(each)
            if each.requires_grad if kind is Tensor else kind not in _NUMBERS:
                return False
        return True

    def _note(self, tensor: Tensor, operation: str, given: Sequence[Tensor]) -> None:
        stage = None
        if not _precision(tensor):
            return
        if _precision(tensor) > self._epsilon:
            stage = Stage(tensor.dtype, operation, line_of_user(sys._getframe(2), __file__))
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

    def narrowest(self, outputs: Sequence[Tensor], nodes: Sequence[Node]) -> Stage | None:
        """Return the first stage of the least precise dtype in the graph of outputs.

        Args:
            outputs: What the function returned.
            nodes: Those between outputs and inputs.
        """
        self._note_returned(outputs)
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
    if kind in _NUMBERS:
        return []
    return [each for each in tree_leaves(nested) if isinstance(each, Tensor)]


def _precision(tensor: Tensor) -> float:
    return _epsilon(tensor.dtype)


@cache
def _epsilon(dtype: torch.dtype) -> float:
    is_inexact = dtype.is_floating_point or dtype.is_complex
    return torch.finfo(dtype).eps if is_inexact else 0.0


def _least_precise(stages: Iterable[Stage | None]) -> Stage | None:
    found = (each for each in stages if each is not None)
    return max(found, key=lambda each: torch.finfo(each.dtype).eps, default=None)
