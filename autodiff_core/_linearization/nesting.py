"""The surroundings of a derivative: other derivatives, inference mode, other threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch._C._functorch import (  # pyright: ignore[reportMissingImports]
    is_functorch_wrapped_tensor,
)

_FORWARD_LEVEL = threading.RLock()
_LONGEST_WAIT = 60.0


def is_wrapped(tensor: Tensor) -> bool:
    """Return whether a tensor belongs to a transformation of `torch.func` around the caller.

    Its numbers may not be readable, and its derivative is that transformation's business.
    """
    return is_functorch_wrapped_tensor(tensor)


def outside_inference_mode() -> AbstractContextManager[object]:
    """Return a context without `torch.inference_mode`, in which autograd sees nothing."""
    is_inside = torch.is_inference_mode_enabled()
    return torch.inference_mode(mode=False) if is_inside else nullcontext()


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
