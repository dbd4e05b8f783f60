"""torch's compiler, for traces of tensor operators that run many times.

A compiled trace can be wrong: callers compare its numbers with those of plain torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn.functional import pad

# The largest number of terms (weights for one output channel) of a convolution that is expanded.
# With more, a matrix product over gathered patches, as in torch's own kernels, is faster.
_TERMS = 64


def compiled(traced: GraphModule, *, as_graph: bool = False) -> Callable[..., Any]:
    """Return a trace that inductor compiles at its first call, for fixed shapes.

    Trace with the decompositions `EXPANDED` to fuse small convolutions.

    Args:
        traced: The trace.
        as_graph: Whether its kernels are launched together, as one CUDA graph. The next call then
            overwrites the results.
    """
    # The compiler would differentiate constants that have an autograd history.
    for node in traced.graph.find_nodes(op="get_attr"):
        constant = getattr(traced, str(node.target))
        if isinstance(constant, Tensor) and constant.requires_grad:
            setattr(traced, str(node.target), constant.detach())
    # A padded tensor is read many times: a copy avoids a bounds check at each read.
    options: dict[str, Any] = {"realize_reads_threshold": 0} if _pads(traced) else {}
    if as_graph:
        options["triton.cudagraphs"] = True
    return torch.compile(traced, dynamic=False, options=options or None)


def compiled_now(traced: GraphModule, *given: Tensor) -> Callable[..., Any]:
    """Return a trace that inductor has compiled for tensors like the given ones.

    A call does not check its arguments: the caller knows their shapes and strides.
    """
    import torch._inductor

    kernel: Any = torch._inductor.compile(traced, list(given))
    return kernel


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
    """Return a small convolution as a sum of shifted images, which fuses with its neighbours."""
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


def _roll(tensor: Tensor, shifts: list[int], dims: Sequence[int] = ()) -> Any:
    """Return a shift along one dimension as two joined parts, which compilers can vectorize."""
    if len(shifts) != 1 or len(dims) != 1 or not tensor.numel():
        return NotImplemented
    size = tensor.shape[dims[0]]
    shift = shifts[0] % size
    parts = tensor.narrow(dims[0], size - shift, shift), tensor.narrow(dims[0], 0, size - shift)
    return torch.cat(parts, dims[0])


EXPANDED = {torch.ops.aten.convolution.default: _convolution, torch.ops.aten.roll.default: _roll}
