# torch has no public function that switches oneDNN without a warning.
# pyright: reportAttributeAccessIssue=false
"""The kernels by which torch evaluates a function while a job computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from jobs.functions.attention import math_attention


@contextmanager
def differentiable_kernels() -> Iterator[None]:
    """Let torch evaluate by kernels that have all derivatives, and rules for vmap."""
    with math_attention(), _recurrence_by_steps(), _layers_by_operators():
        yield


@contextmanager
def _layers_by_operators() -> Iterator[None]:
    """Let torch evaluate attention's modules and encoder layers operator by operator.

    In inference they have a kernel of their own, which forward mode takes for a module with frozen
    parameters, and which has no derivatives.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _recurrence_by_steps() -> Iterator[None]:
    """Let torch compute an LSTM step by step, also in the precisions in which oneDNN can.

    oneDNN's kernel has neither a forward derivative, nor a second one, nor a rule for vmap. As for
    attention, the choice is one of the whole process.
    """
    lstm = torch._VF.lstm

    @wraps(lstm)
    def by_steps(*args: Any, **options: Any) -> Any:
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            return lstm(*args, **options)
        finally:
            torch._C._set_mkldnn_enabled(before)

    torch._VF.lstm = by_steps
    try:
        yield
    finally:
        torch._VF.lstm = lstm
