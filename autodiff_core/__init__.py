"""Whole derivatives of PyTorch functions, block by block.

The package offers the six operations of `torch.autograd.functional` with four strategies and
without that module's limits, and `blocks`, the stream of blocks from which they are assembled;
`ggn` is the generalized Gauss-Newton matrix of a loss over outputs. It depends on torch alone.
"""

from autodiff_core._block import Axis, AxisLayout, Block
from autodiff_core._curvature.functional import GaussNewtonStream, ggn, ggn_blocks
from autodiff_core._curvature.gauss_newton import GaussNewton
from autodiff_core._engines.batched import silent_fallbacks
from autodiff_core._engines.fusion import predicting_fusion
from autodiff_core._engines.preparation import noting_preparation
from autodiff_core._errors import (
    ChangingFunctionError,
    DoubleBackwardError,
    Fallback,
    FallbackWarning,
    MissingForwardDerivativeError,
    MissingReverseDerivativeError,
    ModesDisagreeError,
    NotHolomorphicError,
    headline,
    is_out_of_memory,
)
from autodiff_core._functional import hessian, hvp, jacobian, jvp, vhp, vjp
from autodiff_core._linearization.adjoint import KnownPullback
from autodiff_core._linearization.graph import custom_without_jvp, dtypes_of, nodes_between
from autodiff_core._linearization.linearize import engines
from autodiff_core._stream import BlockStream, blocks
from autodiff_core._tensors.backward_pass import backward_pass
from autodiff_core._tensors.vectors import LazyVectors

__all__ = [
    "Axis",
    "AxisLayout",
    "Block",
    "BlockStream",
    "ChangingFunctionError",
    "DoubleBackwardError",
    "Fallback",
    "FallbackWarning",
    "GaussNewton",
    "GaussNewtonStream",
    "KnownPullback",
    "LazyVectors",
    "MissingForwardDerivativeError",
    "MissingReverseDerivativeError",
    "ModesDisagreeError",
    "NotHolomorphicError",
    "backward_pass",
    "blocks",
    "custom_without_jvp",
    "dtypes_of",
    "engines",
    "ggn",
    "ggn_blocks",
    "headline",
    "hessian",
    "hvp",
    "is_out_of_memory",
    "jacobian",
    "jvp",
    "nodes_between",
    "noting_preparation",
    "predicting_fusion",
    "silent_fallbacks",
    "vhp",
    "vjp",
]
