# torch has no public functions for this.
# pyright: reportPrivateImportUsage=false
"""torch's functionalization: work in place, also on views, as operators without side effects."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_state = threading.local()

NEEDS_ALL_WRAPPED = "mutating a non-functional tensor with a functional tensor is not allowed"
"""What torch says if a function writes a wrapped tensor into one that is not wrapped."""


@contextmanager
def functionalized(*, wraps_copies: bool) -> Iterator[None]:
    """Run operators under functionalization.

    A tensor that a function keeps stays wrapped, so no more are wrapped than necessary.

    An error inside torch leaves guards in the frames of its traceback, which switch autograd off
    for the thread when they are freed (`torch.quantile` under forward mode, torch 2.13). They are
    freed here, and what was switched on before is put back.

    Args:
        wraps_copies: Whether `maybe_wrapped` wraps.
    """
    included = torch._C._dispatch_tls_local_include_set()
    excluded = torch._C._dispatch_tls_local_exclude_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded):
        torch._enable_functionalization(reapply_views=True)
        _state.wraps_copies = wraps_copies
        try:
            yield
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            _state.wraps_copies = False
            torch._disable_functionalization()


def wrapped(tensor: Tensor) -> Tensor:
    """Return a tensor of which functionalization keeps account."""
    return torch._to_functional_tensor(tensor)


def maybe_wrapped(tensor: Tensor) -> Tensor:
    """Return a tensor that a function may write into, wrapped if `functionalized` asks for that."""
    if getattr(_state, "wraps_copies", False):
        return wrapped(tensor)
    return tensor


def unwrapped(tensor: Tensor) -> Tensor:
    """Return the tensor that functionalization wraps, after all pending modifications."""
    if not torch._is_functional_tensor(tensor):
        return tensor
    torch._sync(tensor)
    return torch._from_functional_tensor(tensor)
