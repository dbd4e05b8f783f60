"""A transformer encoder block with normalization before each sublayer.

    h = t + Attention(LayerNorm(t)) Wo,    Attention = softmax(Q K^T / sqrt(width / heads)) V
    y = h + W2 GELU(W1 LayerNorm(h)),      width -> 4 width -> width

The tokens t are the input; the weights are constants. Attention is written out, because torch's
fused kernel (scaled_dot_product_attention) has no forward derivative and none of second order.

Sources:
    A. Vaswani et al., Attention is all you need, Advances in Neural Information Processing
    Systems 30 (2017).
    R. Xiong et al., On layer normalization in the transformer architecture, International
    Conference on Machine Learning (2020): normalization before the sublayer.
    D. Hendrycks, K. Gimpel, Gaussian error linear units, arXiv:1606.08415 (2016).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from jobs.problems._options import check_size, seeded_generator
from jobs.problems._perceptron import draw_linear
from jobs.problems.problem import Problem

__all__ = ["transformer_block"]


def transformer_block(
    *, n: int, width: int, heads: int, seed: int, dtype: torch.dtype, device: torch.device
) -> Problem:
    """Build the block at standard normal tokens.

    Args:
        n: The number of tokens, at least 1.
        width: The number of channels of a token, at least 1.
        heads: The number of attention heads, at least 1; divides ``width``.
        seed: Determines the weights and the tokens, at least 0.
        dtype: A floating-point dtype.
        device: Where the weights and the point lie.

    Returns:
        Input ``tokens`` and output ``encoded``, both of shape (n, width); no scalar form.

    Raises:
        ValueError: An option is not valid.
    """
    for option, value in (("n", n), ("width", width), ("heads", heads)):
        check_size(option, value)
    if width % heads:
        raise ValueError(
            f"function.heads={heads} is not valid: it must divide function.width={width}."
        )
    generator = seeded_generator(seed)
    drawn = _draw_weights(width, generator)
    tokens = torch.randn(n, width, generator=generator, dtype=torch.float64)
    weights = {name: weight.to(device, dtype) for name, weight in drawn.items()}
    return Problem(
        function=partial(_encoder_block, weights=weights, heads=heads),
        scalar=None,
        point={"tokens": tokens.to(device, dtype)},
        outputs=("encoded",),
    )


def _draw_weights(width: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the float64 weights, named as ``torch.nn.TransformerEncoderLayer`` names them."""
    weights = {}
    for name, inputs, outputs in (
        ("self_attn.in_proj", width, 3 * width),
        ("self_attn.out_proj", width, width),
        ("linear1", width, 4 * width),
        ("linear2", 4 * width, width),
    ):
        # The names are torch's own, and irregular: in_proj_weight, but out_proj.weight.
        separator = "_" if name.endswith("in_proj") else "."
        weight, bias = draw_linear(inputs, outputs, generator)
        weights[f"{name}{separator}weight"] = weight
        weights[f"{name}{separator}bias"] = bias
    for name in ("norm1", "norm2"):
        gain, bias = torch.randn(2, width, generator=generator, dtype=torch.float64) * 0.1
        weights[f"{name}.weight"] = 1 + gain
        weights[f"{name}.bias"] = bias
    return weights


def _encoder_block(tokens: Tensor, *, weights: dict[str, Tensor], heads: int) -> Tensor:
    hidden = tokens + _attention(_normalize(tokens, "norm1", weights), weights, heads)
    inner = gelu(_project(_normalize(hidden, "norm2", weights), "linear1.", weights))
    return hidden + _project(inner, "linear2.", weights)


def _attention(tokens: Tensor, weights: dict[str, Tensor], heads: int) -> Tensor:
    n, width = tokens.shape
    projected = _project(tokens, "self_attn.in_proj_", weights)
    # (n, 3 width) -> three tensors of shape (heads, n, width / heads)
    query, key, value = projected.view(n, 3, heads, width // heads).permute(1, 2, 0, 3).unbind()
    scores = query @ key.transpose(-2, -1) / (width // heads) ** 0.5
    attended = torch.softmax(scores, dim=-1) @ value
    return _project(attended.transpose(0, 1).reshape(n, width), "self_attn.out_proj.", weights)


def _normalize(tokens: Tensor, name: str, weights: dict[str, Tensor]) -> Tensor:
    gain, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return layer_norm(tokens, gain.shape, gain, bias)


def _project(tokens: Tensor, prefix: str, weights: dict[str, Tensor]) -> Tensor:
    return linear(tokens, weights[f"{prefix}weight"], weights[f"{prefix}bias"])
