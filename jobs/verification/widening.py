"""Evaluate a function in double precision although it has stages of lower precision inside."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from autodiff_core import backward_pass, nodes_between

# What casts a tensor to the dtype in its name.
_CASTS: dict[Any, Any] = {
    Tensor.half: Tensor.double,
    Tensor.bfloat16: Tensor.double,
    Tensor.float: Tensor.double,
}
_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
# What makes a tensor of nothing but one value, which is the same in every dtype.
_FILLED = (torch.empty, torch.zeros, torch.ones)

# The names of what writes into its first argument, or returns what belongs to it: add_, __iadd__,
# __setitem__, __set__ and __get__ of .data.
_WRITES = re.compile(r"[^_]_$|^__i(?!nvert__|ndex__|nt__).+__$|^__setitem__$|^__[gs]et__$")
# The arguments that hold nothing else, and are no dtype.
_PLAIN = {int, float, bool, str, type(None), torch.device, torch.Size, type(...)}
_DTYPE = Tensor.dtype.__get__  # pyright: ignore[reportAttributeAccessIssue]


class Widening(TorchFunctionMode):
    """While it is entered, torch's functions compute in double precision.

    Casts to a narrower dtype are casts to double precision, and so is every tensor that a function
    of torch is given; `torch.autocast` leaves double precision alone. What cannot be widened raises
    an error, or returns a narrow tensor.

    Attributes:
        epsilon: The unit of rounding of what was computed narrowly all the same, in a tensor of the
            user's, say; 0 where nothing was.
    """

    def __init__(self) -> None:
        """Note nothing yet."""
        super().__init__()
        self.epsilon = 0.0
        # To widen the weights of a network takes longer than to multiply with them. What an
        # evaluation makes for itself is gone with it.
        self._constants = WeakIdKeyDictionary()

    def forget(self) -> None:
        """Free what was widened: all weights of a network, in twice their bytes."""
        self._constants.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch with everything widened."""
        kwargs = kwargs or {}
        # What is written into has to stay the tensor that it is.
        is_written = func != _DTYPE and _WRITES.search(getattr(func, "__name__", ""))
        kept, rest = (args[:1], args[1:]) if is_written else ((), args)
        if func in _FILLED:
            kwargs = {
                **kwargs,
                "dtype": self._wide(kwargs.get("dtype") or torch.get_default_dtype()),
            }
        # What makes other numbers of nothing stays as it is: random ones depend on the dtype.
        elif kept or _holds_tensor(rest) or _holds_tensor(kwargs):
            rest, kwargs = _mapped(self._wide, rest), _mapped(self._wide, kwargs)
        call = _CASTS.get(func, func)
        if func is torch.autograd.grad:
            with self._entered_in_custom_backwards(*rest[:2], **kwargs):
                return _gradients(*rest, **kwargs)
        return call(*kept, *rest, **kwargs)

    @contextmanager
    def _entered_in_custom_backwards(self, outputs: Any, inputs: Any, **_: Any) -> Iterator[None]:
        """Enter this mode in each custom backward as well, which torch calls outside of it."""
        outputs, inputs = (
            each if isinstance(each, Sequence) else [each] for each in (outputs, inputs)
        )
        # One that raises an error does not come to its hook.
        with ExitStack() as hooks, ExitStack() as entered:
            for node in nodes_between(outputs, inputs):
                if isinstance(node, torch.autograd.function.BackwardCFunction):
                    before = node.register_prehook(lambda _: entered.enter_context(self) and None)
                    after = node.register_hook(lambda *_: entered.close())
                    hooks.callback(before.remove)
                    hooks.callback(after.remove)
            yield

    def _wide(self, given: Any) -> Any:
        if isinstance(given, torch.dtype):
            return _WIDE.get(given, given)
        if not isinstance(given, Tensor) or given.dtype not in _WIDE:
            return given
        if given.requires_grad:
            self.epsilon = max(self.epsilon, torch.finfo(given.dtype).eps)
        is_plain = type(given) in (Tensor, Parameter) and not given.is_inference()
        if given.requires_grad or not is_plain:
            return given.to(_WIDE[given.dtype])
        wide, versions = self._constants.get(given) or (given, None)
        # A function may write into its constant, and into what it was given in the place of it.
        if versions != (given._version, wide._version):
            wide = given.to(_WIDE[given.dtype])
            # What belongs to a transformation of torch.func ends with it.
            if not any(map(is_functorch_wrapped_tensor, (given, wide))):
                self._constants[given] = wide, (given._version, wide._version)
        return wide


def _holds_tensor(value: Any) -> bool:
    """Return whether an argument of a function of torch is a tensor, or holds one."""
    if isinstance(value, Tensor) or type(value) in _PLAIN:
        return isinstance(value, Tensor)
    if type(value) in (tuple, list, dict):
        return any(map(_holds_tensor, value.values() if type(value) is dict else value))
    return any(isinstance(each, Tensor) for each in tree_leaves(value))


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return an argument of a function of torch with the leaves of its containers changed.

    It is called for each operator of the function, and pytrees take longer than a small operator.
    """
    if isinstance(value, Tensor | torch.dtype):
        return change(value)
    if type(value) in _PLAIN:
        return value
    if type(value) is dict:
        return {name: _mapped(change, each) for name, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)([_mapped(change, each) for each in value])
    return tree_map(change, value)


def _gradients(outputs: Any, inputs: Any, **options: Any) -> Any:
    """Call `torch.autograd.grad`, or for one that keeps its graph what does not load sympy."""
    given: tuple[Any, ...] = (outputs, inputs, options.get("grad_outputs"))
    is_kept = options.get("retain_graph") and options.get("materialize_grads")
    is_plain = is_kept and not options.get("is_grads_batched")
    # One tensor by itself is no sequence.
    if is_plain and all(isinstance(each, Sequence) for each in given):
        outputs, inputs, cotangents = (list[Any](each) for each in given)
        if all(isinstance(each, Tensor) for each in (*outputs, *inputs, *cotangents)):
            create_graph = bool(options.get("create_graph"))
            return backward_pass(outputs, inputs, cotangents, create_graph=create_graph)
    return torch.autograd.grad(outputs, inputs, **options)
