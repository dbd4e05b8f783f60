"""The kernel by which torch evaluates attention while a job computes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

Kernel = Literal["", "fused", "math"]

_FUSED = re.compile(r"ScaledDotProduct\w*Attention")
# Only the math kernel calls this softmax, which gives zeros for a row that is masked as a whole.
_MATH = re.compile(r"SafeSoftmax")
_KERNELS = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
]

NOTE = (
    "attention is evaluated by torch's math kernel instead of a fused one, which has neither a "
    "forward derivative nor a second one"
)


@contextmanager
def math_attention() -> Iterator[None]:
    """Let torch evaluate attention by its math kernel, which has all derivatives.

    The fused kernels have neither a forward derivative, nor a second one, nor a rule for vmap, so
    that a derivative through them has no second route to compare it with. The kernel is a setting
    of the whole process, so that it holds for backward passes that evaluate a part again. A
    function that chooses a kernel itself keeps its choice.
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def default_attention() -> Iterator[None]:
    """Let torch choose the kernel of attention as it does outside of a job."""
    with sdpa_kernel(_KERNELS):
        yield


def attention_kernel(nodes: Iterable[Node]) -> Kernel:
    """Return the kernel of attention that nodes of a graph are of."""
    names = [node.name() for node in nodes]
    if any(map(_FUSED.search, names)):
        return "fused"
    return "math" if any(map(_MATH.search, names)) else ""
