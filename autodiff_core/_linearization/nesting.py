"""The surroundings of a derivative: other derivatives, inference mode, other threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import _C, _VF, Tensor
from torch.overrides import TorchFunctionMode

_FORWARD_LEVEL = threading.RLock()
_LONGEST_WAIT = 60.0


def is_wrapped(tensor: Tensor) -> bool:
    """Return whether a tensor belongs to a transformation of `torch.func` around the caller.

    Its numbers may not be readable, and its derivative is that transformation's business.
    """
    return _C._functorch.is_functorch_wrapped_tensor(tensor)  # pyright: ignore[reportAttributeAccessIssue]


class _NoAssignedData(TorchFunctionMode):
    """Forbid that a tensor of the function takes over the data of a wrapped one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func == _SET_DATA and is_wrapped(args[1]):
            raise RuntimeError(
                "the function changes the data of a tensor of its own (as Module.to does), which "
                "would hold data of a transformation that has ended"
            )
        return func(*args, **(kwargs or {}))


_SET_DATA = Tensor.data.__set__  # pyright: ignore[reportAttributeAccessIssue]


def guarded_tensors(arguments: Sequence[Tensor]) -> AbstractContextManager[object]:
    """Return a context for a function inside a transformation, given the function's arguments.

    `Module.to` inside it leaves parameters whose data end with the transformation; torch ends the
    process when they are used again. In this context it raises an error, so that the caller can do
    without the transformation.
    """
    return _NoAssignedData() if any(map(is_wrapped, arguments)) else nullcontext()


def outside_inference_mode() -> AbstractContextManager[object]:
    """Return a context without `torch.inference_mode`, in which autograd sees nothing."""
    is_inside = torch.is_inference_mode_enabled()
    return torch.inference_mode(mode=False) if is_inside else nullcontext()


@contextmanager
def recording(*, create_graph: bool) -> Iterator[None]:
    """Compute outside of inference mode, and with a graph even inside `torch.no_grad` if wanted."""
    is_enabled = create_graph or torch.is_grad_enabled()
    with outside_inference_mode(), torch.set_grad_enabled(is_enabled):
        yield


_DECOMPOSITIONS = "torch._decomp.decompositions_for_jvp"


def has_decompositions() -> bool:
    """Return whether torch has loaded how operators without a forward derivative are composed."""
    return _DECOMPOSITIONS in sys.modules


def dual_number(tensor: Tensor, tangent: Tensor, *, decomposing: bool) -> Tensor:
    """Return a dual number of forward mode.

    Args:
        tensor: The tensor.
        tangent: Its tangent.
        decomposing: Whether torch loads decompositions for operators that have no forward
            derivative, which takes longer than a small derivative and is not needed by most.
    """
    make = None if decomposing else getattr(_VF, "_make_dual", None)
    if make is None:
        return forward_ad.make_dual(tensor, tangent)
    return make(tensor, tangent, level=forward_ad._current_level)


@contextmanager
def exclusive_forward_level() -> Iterator[None]:
    """Let one thread after the other use forward mode: torch has one level for a whole process.

    Raises:
        RuntimeError: Another thread has used it for a minute. It may be waiting for this one, if
            the function that it differentiates has started this thread.
    """
    if not _FORWARD_LEVEL.acquire(timeout=_LONGEST_WAIT):
        raise RuntimeError(
            f"forward mode has been in use by another thread for {_LONGEST_WAIT:.0f} seconds, and "
            "torch has one level of it for a whole process; use the strategies 'reverse-loop' and "
            "'vectorize', or processes in place of threads"
        )
    try:
        yield
    finally:
        _FORWARD_LEVEL.release()
