"""torch's compiler, for traces of tensor operators that are run again and again.

A compiler is not trusted: whoever uses it holds its numbers against those of plain torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn.functional import pad

# A term for each weight that meets an output channel: with more of them, a matrix product over
# gathered patches, which is what torch's own kernels do, is ahead.
_TERMS = 64


def compiled(traced: GraphModule, *, as_graph: bool = False) -> Callable[..., Any]:
    """A trace as compiled by inductor at its first call; of fixed shapes.

    Small convolutions are to be traced with `EXPANDED`.

    Args:
        traced: The trace.
        as_graph: Whether its kernels are launched together, as one CUDA graph. What it gives is
            then overwritten by the next call.
    """
    # The compiler looks at the gradients of constants that have a history.
    for node in traced.graph.find_nodes(op="get_attr"):
        constant = getattr(traced, str(node.target))
        if isinstance(constant, Tensor) and constant.requires_grad:
            setattr(traced, str(node.target), constant.detach())
    # What is padded is read at many places: its own copy needs no question at each of them.
    options: dict[str, Any] = {"realize_reads_threshold": 0} if _pads(traced) else {}
    if as_graph:
        options["triton.cudagraphs"] = True
    return torch.compile(traced, dynamic=False, options=options or None)


def _pads(traced: GraphModule) -> bool:
    return any(node.target is torch.ops.aten.constant_pad_nd.default for node in traced.graph.nodes)


def _convolution(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Any:
    """A small convolution as a sum of shifted images, which fuses with what is around it."""
    terms = weight[0].numel()
    if transposed or groups != 1 or terms > _TERMS or images.device.type != "cpu":
        return NotImplemented
    kernel = weight.shape[2:]
    padded = pad(images, [side for width in reversed(padding) for side in (width, width)])
    extents = [
        (length - spread * (size - 1) - 1) // step + 1
        for length, spread, size, step in zip(
            padded.shape[2:], dilation, kernel, stride, strict=True
        )
    ]
    total = images.new_zeros(()) if bias is None else bias.reshape(-1, *(1 for _ in kernel))
    for channel in range(weight.shape[1]):
        for tap in itertools.product(*map(range, kernel)):
            seen = padded[:, channel : channel + 1]
            for axis, place in enumerate(tap):
                start, step = place * dilation[axis], stride[axis]
                stop = start + step * (extents[axis] - 1) + 1
                seen = seen[(slice(None),) * (2 + axis) + (slice(start, stop, step),)]
            factor = weight[(slice(None), channel, *tap)].reshape(-1, *(1 for _ in kernel))
            total = total + factor * seen
    return total


EXPANDED = {torch.ops.aten.convolution.default: _convolution}
