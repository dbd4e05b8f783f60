"""The rule for the backward of torch's fused attention on the CPU, which has no rule for vmap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs.program import Builder
from autodiff_core._programs.recording import Call
from autodiff_core._programs.rules.products import live_times, softmax_pullback, times_live
from autodiff_core._programs.rules.registry import only_first, output_of, rule_of_several, step_of
from autodiff_core._programs.steps import combination, permutation

_aten = torch.ops.aten


@rule_of_several(_aten._scaled_dot_product_flash_attention_for_cpu_backward)
def _attention_backward(builder: Builder, call: Call) -> Any:
    """Pull back A V with the weights A = softmax(s Q Kᵀ + mask), which are computed once.

    For the cotangent g these are, in the order of the operator's outputs, s D K, s Dᵀ Q and Aᵀ g
    with D = A * (g Vᵀ - sum(A * g Vᵀ)): T. Dao et al., "FlashAttention" (2022), appendix B.2.
    """
    gradient, query, key, value, _, _, dropout = call.args[:7]
    if not only_first(builder, call) or dropout:
        return NotImplemented
    scale = call.kwargs.get("scale")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    weights = _weights(query, key, scale, call.args[7], call.kwargs.get("attn_mask"))
    number = step_of(builder, gradient)
    scores = replace(gradient, shape=tuple(weights.shape))
    lines = live_times(builder, number, gradient.shape, value.mT, scores)
    lines = softmax_pullback(builder, lines, weights, -1, scores)
    lines = builder.add(combination((lines,), (scale,), scores.shape, scores.dtype))
    order = (*range(weights.dim() - 2), weights.dim() - 1, weights.dim() - 2)
    turned = tuple(weights.mT.shape)
    columns = builder.add(permutation(lines, order, turned, scores.dtype))
    made = (
        lambda out: live_times(builder, lines, scores.shape, key, out),
        lambda out: live_times(builder, columns, turned, query, out),
        lambda out: times_live(builder, weights.mT, number, out),
    )
    for output, make in zip(call.outputs, made, strict=True):
        if output is not None:
            builder.numbers[output.value] = make(output)
    return output_of(call)


def _weights(
    query: Tensor, key: Tensor, scale: float, is_causal: bool, mask: Tensor | None
) -> Tensor:
    """Return the weights; a query that attends to nothing has zeros, as torch has."""
    scores = scale * (query @ key.mT)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1).nan_to_num()
