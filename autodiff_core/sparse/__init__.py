"""Sparse Jacobians and Hessians: their patterns, colourings, and values by compressed products.

The package needs numba and scipy, the extra ``sparse``.
"""

from autodiff_core.sparse._extras import require_extras

require_extras()

from autodiff_core.sparse._colouring.colouring import Colouring, colour  # noqa: E402 - after the message
from autodiff_core.sparse._compressed import (  # noqa: E402
    compressed_streams,
    decompressed,
    seeds,
    sides,
    sparse_hessian,
    sparse_jacobian,
)
from autodiff_core.sparse._detection.detect import detect_sparsity  # noqa: E402
from autodiff_core.sparse._errors import DetectionError, PatternError  # noqa: E402
from autodiff_core.sparse._evaluator import SparseEvaluator  # noqa: E402
from autodiff_core.sparse._pattern import SparsityPattern  # noqa: E402

__all__ = [
    "Colouring",
    "DetectionError",
    "PatternError",
    "SparseEvaluator",
    "SparsityPattern",
    "colour",
    "compressed_streams",
    "decompressed",
    "detect_sparsity",
    "seeds",
    "sides",
    "sparse_hessian",
    "sparse_jacobian",
]
