"""The rule of interpolation: a product with a constant matrix for each side of an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call
from autodiff_core._programs.rules.products import live_times, times_live
from autodiff_core._programs.rules.registry import only_first, output_of, rule, step_of

_aten = torch.ops.aten

_OF_BACKWARD = {
    _aten.upsample_linear1d_backward: _aten.upsample_linear1d,
    _aten.upsample_bilinear2d_backward: _aten.upsample_bilinear2d,
    _aten.upsample_bicubic2d_backward: _aten.upsample_bicubic2d,
    _aten._upsample_bilinear2d_aa_backward: _aten._upsample_bilinear2d_aa,
    _aten._upsample_bicubic2d_aa_backward: _aten._upsample_bicubic2d_aa,
}

_LONGEST_SIDE = 128
"""Products with longer sides take more time than reading the few elements that matter."""


@rule(*_OF_BACKWARD, *_OF_BACKWARD.values())
def _interpolation(builder: Builder, call: Call) -> Any:
    packet = call.operator.overloadpacket
    forward: Any = _OF_BACKWARD.get(packet, packet)
    is_backward = packet is not forward
    source, out = call.args[0], output_of(call)
    aligned, *scales = call.args[3 if is_backward else 2 :]
    before, after = (out.shape, source.shape) if is_backward else (source.shape, out.shape)
    is_usual = only_first(builder, call) and call.operator is packet.default and not call.kwargs
    if not is_usual or max(*before[2:], *after[2:]) > _LONGEST_SIDE:
        return NotImplemented
    matrices = []
    for place, (size, length) in enumerate(zip(before[2:], after[2:], strict=True)):
        # Antialiasing along another side than the last is wrong if that is 1 (torch 2.13).
        others = [1] * (len(before) - 3)
        units = torch.eye(size, dtype=out.dtype, device=out.device).reshape(size, 1, *others, size)
        scale = scales[place] if scales else None
        lines = forward(units, [*others, length], aligned, *(None for _ in others), scale)
        matrix = lines.reshape(size, length)
        matrices.append(matrix.mT.contiguous() if is_backward else matrix)
    last = (*source.shape[:-1], out.shape[-1])
    number = step_of(builder, source)
    number = live_times(builder, number, source.shape, matrices[-1], replace(out, shape=last))
    if len(matrices) == 1:
        return number
    return times_live(builder, matrices[0].mT.contiguous(), number, out)
