"""Detection rules for Fourier transforms and complex numbers."""

from __future__ import annotations

from typing import Any

from autodiff_core.sparse._detection.dependence import Traced
from autodiff_core.sparse._detection.elementwise import elementwise
from autodiff_core.sparse._detection.index_sets import Layer
from autodiff_core.sparse._detection.reductions import reduce_dims
from autodiff_core.sparse._detection.registry import Call, rule


@rule("_fft_c2c", "_fft_c2r", "_fft_r2c")
def _transform(call: Call) -> Traced:
    """Return the dependence on whole lines along the transformed dimensions, and on no others."""
    layers = reduce_dims(call.arguments[0], call.operand("dim"), call.context)
    return Traced(
        call.shape, tuple(Layer(layer.map.expand(call.shape), layer.table) for layer in layers)
    )


@rule("view_as_real")
def _parts(call: Call) -> Traced:
    layers = call.arguments[0].layers
    return Traced(
        call.shape,
        tuple(Layer(each.map.unsqueeze(-1).expand(call.shape), each.table) for each in layers),
    )


@rule("view_as_complex")
def _whole(call: Call) -> Traced:
    layers = reduce_dims(call.arguments[0], [-1], call.context)
    return Traced(call.shape, tuple(Layer(each.map.squeeze(-1), each.table) for each in layers))


@rule("_conj", "_conj_physical", "_neg_view", "resolve_conj", "resolve_neg", "imag", "real")
def _unchanged(call: Call) -> Any:
    return Traced(call.shape, call.arguments[0].layers)


@rule("complex", "polar")
def _joined(call: Call) -> Traced:
    return elementwise(call.arguments[:2], call.shape, call.context)
