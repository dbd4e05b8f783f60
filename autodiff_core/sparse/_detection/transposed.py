"""Detection rules for the backward passes of linear operators: their pattern, transposed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autodiff_core.sparse._detection.dependence import Traced
from autodiff_core.sparse._detection.index_sets import Layer
from autodiff_core.sparse._detection.registry import Call, rule

_POOLS = [f"avg_pool{dims}d" for dims in (2, 3)]
_PADS = [f"{kind}_pad{dims}d" for kind in ("reflection", "replication") for dims in (1, 2, 3)]
_ADAPTIVE = [f"_adaptive_avg_pool{dims}d" for dims in (2, 3)]
_NEAREST = ("upsample_nearest", "_upsample_nearest_exact")
_UPSAMPLES = [
    "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d",
    *(f"{kind}{dims}d" for kind in _NEAREST for dims in (1, 2, 3)),
]  # fmt: skip


@rule(*(f"{name}_backward" for name in (*_POOLS, *_PADS, *_ADAPTIVE, *_UPSAMPLES)))
def _pullback(call: Call) -> Any:
    """Return the dependence on the cotangent, by the pattern of the operator itself."""
    cotangent = call.arguments[0]
    if not isinstance(cotangent, Traced):
        return NotImplemented
    name = call.name.removesuffix("_backward")
    forward = getattr(torch.ops.aten, name).default
    if name in _ADAPTIVE:
        given: tuple[Any, ...] = (list(cotangent.shape[-int(name[-2]) :]),)
    elif name in _UPSAMPLES:
        given = (call.arguments[1], *call.arguments[3:])
    else:
        given = tuple(call.arguments[2:])
    operator: Callable[[Tensor], Tensor] = lambda image: forward(image, *given)  # noqa: E731
    pattern = call.context.pattern(operator, torch.zeros(call.shape, dtype=torch.float64))
    columns = pattern.transposed()
    united = call.context.sets.grouped(
        cotangent.layers, torch.from_numpy(columns.indptr), torch.from_numpy(columns.indices)
    )
    layers = tuple(Layer(layer.map.view(call.shape), layer.table) for layer in united)
    return Traced(call.shape, layers)
